INSERT INTO t (k, a, c, s, arr, v, w, j, q)
    SELECT k, k * 10, k * 100, 's' || k, ARRAY[k, k + 1], ROW(k, 'j')::pair,
        ROW(ROW(k, 'p'), ARRAY[k], ROW(NULL, 'o'))::deep, jsonb_build_object('k', k), ARRAY[k, 7]
    FROM generate_series(1, 12) AS k;
INSERT INTO u SELECT k % 8, k, 'y' || k FROM generate_series(1, 24) AS k;
INSERT INTO e VALUES (1, '[1,5)', 'one'), (2, '[1,5)', 'two');
INSERT INTO o VALUES (1, NULL), (2, 1), (3, 1), (4, 2), (5, 4);
INSERT INTO c VALUES (1, 'A', 'x'), (2, 'b', 'Y'), (3, 'a', NULL), (4, NULL, 'Z'), (5, 'B', 'q');
