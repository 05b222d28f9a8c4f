//! Made-up product reviews for the demo: always the same for the same seed, and skewed as real ones are.
//!
//! A few customers write many reviews and a few products get many. Both follow Zipf's law with exponent 1, so the
//! k-th is chosen with a probability close to 1/(k ln n): that is n to the power of an even random number, rounded
//! down. Ratings lean towards five stars, reviews become more frequent over the years, and the words of a title fit
//! the product's group.

use std::fmt;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The customer who writes the most.
pub(crate) const BUSIEST_CUSTOMER: &str = "HN802";

/// How many customers there are.
const CUSTOMERS: u32 = 20_000;

/// How many products there are.
const PRODUCTS: u32 = 5_000;

/// Product groups by number of product: a pattern that repeats, so that products `GROUPS.len()` apart are alike.
const GROUPS: [&Group; 20] = [
    &BOOK, &MUSIC, &BOOK, &DVD, &BOOK, &BOOK, &MUSIC, &VIDEO, &BOOK, &TOY, //
    &BOOK, &BOOK, &MUSIC, &DVD, &BOOK, &SOFTWARE, &BOOK, &MUSIC, &VIDEO, &BOOK,
];

/// What the products of a group are called, and on which shelves they stand.
struct Group {
    name: &'static str,
    titles: &'static [&'static str],
    shelves: &'static [(&'static str, &'static [&'static str])],
}

const BOOK: Group = Group {
    name: "Book",
    titles: &[
        "The {a} {n}",
        "A History of the {a} {n}",
        "{n}s and {m}s",
        "The {n}'s {m}",
        "Cooking with a {a} {n}",
    ],
    shelves: &[
        ("Literature & Fiction", &["Classics", "Short Stories", "Poetry"]),
        ("History", &["Ancient", "Europe", "Military"]),
        ("Science", &["Astronomy", "Mathematics", "Nature"]),
        ("Cooking", &["Baking", "Regional", "Vegetarian"]),
        ("Mystery", &["Police Procedurals", "Thrillers"]),
    ],
};

const MUSIC: Group = Group {
    name: "Music",
    titles: &[
        "{a} {n} Blues",
        "Songs of the {n}",
        "Live at the {n}",
        "{m} & {n}: The {a} Sessions",
    ],
    shelves: &[
        ("Jazz", &["Bebop", "Swing", "Vocal"]),
        ("Rock", &["Alternative", "Progressive"]),
        ("Classical", &["Chamber Music", "Opera", "Symphonies"]),
    ],
};

const DVD: Group = Group {
    name: "DVD",
    titles: &["The {a} {n}", "Return of the {n}", "{n} vs. {m}"],
    shelves: &[
        ("Drama", &["Classics", "Family"]),
        ("Comedy", &["Romantic", "Satire"]),
        ("Documentary", &["Nature"]),
    ],
};

const VIDEO: Group = Group {
    name: "Video",
    titles: &["The {a} {n} (VHS)", "{n} of the {m} (VHS)"],
    shelves: &[("Drama", &["Classics", "Family"]), ("Children", &["Animation", "Fairy Tales"])],
};

const TOY: Group = Group {
    name: "Toy",
    titles: &["{a} Wooden {n}", "Build Your Own {n}", "{n} Puzzle, 500 Pieces"],
    shelves: &[("Games", &["Board Games", "Puzzles"]), ("Building Sets", &["Blocks", "Trains"])],
};

const SOFTWARE: Group = Group {
    name: "Software",
    titles: &["{a} {n} 2000", "{n} Workshop Deluxe"],
    shelves: &[("Education", &["Languages", "Typing"]), ("Utilities", &["Backup", "Fonts"])],
};

const ADJECTIVES: [&str; 16] = [
    "Quiet",
    "Golden",
    "Distant",
    "Hidden",
    "Crooked",
    "Electric",
    "Last",
    "Silver",
    "Wandering",
    "Forgotten",
    "Burning",
    "Gentle",
    "Northern",
    "Invisible",
    "Patient",
    "Broken",
];

const NOUNS: [&str; 24] = [
    "River",
    "Lighthouse",
    "Elephant",
    "Garden",
    "Machine",
    "Harbor",
    "Shepherd",
    "Mountain",
    "Clock",
    "Kitchen",
    "Sailor",
    "Orchard",
    "Comet",
    "Library",
    "Mirror",
    "Bridge",
    "Winter",
    "Island",
    "Carpenter",
    "Engine",
    "Violin",
    "Desert",
    "Fox",
    "Tower",
];

/// One row of `customer_reviews`, column by column. Displays as a line of COPY's text format, without the line's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Review {
    customer_id: String,
    review_date: Date,
    review_rating: u8,
    review_votes: u32,
    review_helpful_votes: u32,
    product: Product,
    similar_product_ids: Vec<String>,
}

impl fmt::Display for Review {
    /// No value of ours has a tab, a backslash or an end of line in it, so nothing needs to be escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Product { id, title, sales_rank, group, category, subcategory } = &self.product;
        write!(f, "{}\t{}\t{}\t", self.customer_id, self.review_date, self.review_rating)?;
        write!(f, "{}\t{}\t", self.review_votes, self.review_helpful_votes)?;
        write!(f, "{id}\t{title}\t{sales_rank}\t{group}\t{category}\t{subcategory}\t")?;
        write!(f, "{{{}}}", self.similar_product_ids.join(","))
    }
}

/// A product, as every review of it repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Product {
    id: String,
    title: String,
    sales_rank: u64,
    group: &'static str,
    category: &'static str,
    subcategory: &'static str,
}

/// A day between 1996 and 2005.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    year: u32,
    month: u32,
    day: u32,
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// Reviews without end.
#[derive(Debug)]
pub(crate) struct Reviews {
    random: ChaCha8Rng,
    products: Vec<Product>,
}

impl Reviews {
    /// The reviews that `seed` leads to.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let products = (0..PRODUCTS).map(|number| product(number, &mut random)).collect();
        Self { random, products }
    }

    /// The ids of products like this one: from two to five, of the same group.
    fn similar_to(&mut self, number: usize) -> Vec<String> {
        let count = self.random.random_range(2..=5);
        (1..=count)
            .map(|step| {
                self.products[(number + step * GROUPS.len()) % self.products.len()].id.clone()
            })
            .collect()
    }
}

impl Iterator for Reviews {
    type Item = Review;

    fn next(&mut self) -> Option<Review> {
        let number = zipf(PRODUCTS, &mut self.random) as usize;
        let review_votes = zipf(60, &mut self.random);
        Some(Review {
            customer_id: customer_id(zipf(CUSTOMERS, &mut self.random)),
            review_date: date(&mut self.random),
            review_rating: rating(number, &mut self.random),
            review_votes,
            review_helpful_votes: self.random.random_range(0..=review_votes),
            product: self.products[number].clone(),
            similar_product_ids: self.similar_to(number),
        })
    }
}

/// A number below `count`; small ones are frequent, as Zipf's law has it.
fn zipf(count: u32, random: &mut ChaCha8Rng) -> u32 {
    let power = f64::from(count).powf(random.random::<f64>());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and count"
    )]
    let rank = power as u32;
    rank.clamp(1, count) - 1
}

/// Two letters and three digits, different for every number; number 0 is [`BUSIEST_CUSTOMER`].
pub(crate) fn customer_id(number: u32) -> String {
    const IDS: u64 = 26 * 26 * 1000;
    // Has no factor in common with IDS, so that ids repeat only after all of them were given.
    const STEP: u64 = 400_009;
    const FIRST: u64 = 195_802;
    let id = (FIRST + u64::from(number) * STEP) % IDS;
    let letter = |index: u64| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(index % 26) as usize]);
    format!("{}{}{:03}", letter(id / 26_000), letter(id / 1000), id % 1000)
}

/// The product of this number. Its id has ten characters: digits for a book, `B0000` and more for the others.
fn product(number: u32, random: &mut ChaCha8Rng) -> Product {
    let group = GROUPS[number as usize % GROUPS.len()];
    let (category, subcategories) = pick(group.shelves, random);
    let scattered = (u64::from(number) * 7_654_321 + 1_234_567) % 60_000_000;
    let noun = random.random_range(0..NOUNS.len());
    let another_noun = (noun + random.random_range(1..NOUNS.len())) % NOUNS.len();
    Product {
        id: if group.name == "Book" {
            format!("0{scattered:09}")
        } else {
            format!("B0000{:05}", base36(scattered))
        },
        title: pick(group.titles, random)
            .replace("{a}", pick(&ADJECTIVES, random))
            .replace("{n}", NOUNS[noun])
            .replace("{m}", NOUNS[another_noun]),
        sales_rank: u64::from(number) * 97 + random.random_range(1..=97),
        group: group.name,
        category,
        subcategory: pick(subcategories, random),
    }
}

/// Five digits and capital letters for a number below 36 to the fifth.
fn base36(mut number: u64) -> String {
    let mut digits = [b'0'; 5];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(number % 36) as usize];
        number /= 36;
    }
    digits.map(char::from).iter().collect()
}

/// One to five stars: mostly five, and fewer for some products than for others.
fn rating(product: usize, random: &mut ChaCha8Rng) -> u8 {
    let quality = 0.35 + 0.1 * f64::from(u8::try_from(product * 31 % 5).unwrap_or(0));
    let luck = random.random::<f64>();
    match luck / quality {
        ..0.8 => 5,
        ..1.2 => 4,
        ..1.6 => 3,
        ..2.0 => 2,
        _ => 1,
    }
}

/// A day; late years are more frequent than early ones.
fn date(random: &mut ChaCha8Rng) -> Date {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 120"
    )]
    let months = (120.0 * random.random::<f64>().sqrt()) as u32;
    let (year, month) = (1996 + months.min(119) / 12, months % 12 + 1);
    let days = match month {
        2 if year % 4 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    Date { year, month, day: random.random_range(1..=days) }
}

/// One of `choices`, none of which is preferred.
fn pick<T: Copy>(choices: &[T], random: &mut ChaCha8Rng) -> T {
    choices[random.random_range(0..choices.len())]
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const SEED: u64 = 7;

    fn lines(seed: u64, count: usize) -> Vec<String> {
        Reviews::new(seed).take(count).map(|review| review.to_string()).collect()
    }

    /// How often each value of a column occurs, the most frequent first.
    fn frequencies(column: usize) -> Vec<usize> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for line in lines(SEED, 20_000) {
            *counts.entry(line.split('\t').nth(column).unwrap().to_owned()).or_default() += 1;
        }
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    #[test]
    fn the_same_seed_gives_the_same_reviews_and_another_one_does_not() {
        assert_eq!(lines(SEED, 1000), lines(SEED, 1000));
        assert_ne!(lines(SEED, 1000), lines(SEED + 1, 1000));
    }

    #[test]
    fn all_twelve_columns_are_filled_and_need_no_escaping() {
        for line in lines(SEED, 5000) {
            let columns: Vec<&str> = line.split('\t').collect();
            assert_eq!(columns.len(), 12, "{line}");
            assert!(columns.iter().all(|column| !column.is_empty()), "{line}");
            assert!(!line.contains(['\\', '\n', '\r']), "{line}");
            assert_eq!(columns[5].len(), 10, "{line}");
            assert!(columns[11].len() >= 2 * 10 + 3, "an array of two ids or more: {line}");
        }
    }

    #[test]
    fn numbers_stay_within_what_they_mean() {
        for review in Reviews::new(SEED).take(5000) {
            assert!((1..=5).contains(&review.review_rating));
            assert!(review.review_helpful_votes <= review.review_votes);
            assert!((1996..=2005).contains(&review.review_date.year));
            assert!((1..=12).contains(&review.review_date.month));
        }
    }

    #[test]
    fn a_few_customers_and_products_have_most_of_the_reviews() {
        for column in [0, 5] {
            let counts = frequencies(column);
            let total: usize = counts.iter().sum();
            let top: usize = counts.iter().take(counts.len() / 10).sum();
            assert!(top * 2 > total, "a tenth of column {column} has {top} of {total}");
            assert!(counts[0] > 20 * counts[counts.len() / 2]);
        }
    }

    #[test]
    fn the_busiest_customer_is_the_one_we_name() {
        assert_eq!(customer_id(0), BUSIEST_CUSTOMER);
        let by_busiest =
            Reviews::new(SEED).take(20_000).filter(|it| it.customer_id == BUSIEST_CUSTOMER).count();
        assert_eq!(by_busiest, frequencies(0)[0]);
    }

    #[test]
    fn ids_are_unique() {
        let customers: HashSet<String> = (0..CUSTOMERS).map(customer_id).collect();
        assert_eq!(customers.len(), CUSTOMERS as usize);
        let products: HashSet<String> =
            Reviews::new(SEED).products.into_iter().map(|it| it.id).collect();
        assert_eq!(products.len(), PRODUCTS as usize);
    }

    #[test]
    fn every_product_group_is_reviewed() {
        let groups: HashSet<&str> =
            Reviews::new(SEED).take(5000).map(|it| it.product.group).collect();
        assert_eq!(groups.len(), 6);
    }
}
