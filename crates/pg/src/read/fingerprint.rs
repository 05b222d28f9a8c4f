//! Statements that differ in nothing but constants.
//!
//! A client without parameters sends the same statement with other constants again and again. Where a constant
//! could as well be a parameter it is *lifted*: two statements have the same shape if they are equal but for
//! these. The plan of a shape serves them all; what PostgreSQL's parser and analyser made of each statement is
//! compared to the letter, by its own `equal`, so that a wrong match cannot be.

use crate::path::plan::Plan;
use crate::read::query::Statement;
use crate::sys::node::{self, Visit};
use crate::sys::value::is_binary_safe;
use pgrx::pg_sys::{self, NodeTag};
use std::rc::Rc;

/// What a statement looks like from afar, and its constants that may be lifted.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    /// Equal for statements of one shape, and seldom for others.
    pub fingerprint: u64,
    constants: Vec<*mut pg_sys::Const>,
}

/// A parameter that stands for a lifted constant has this number and those that follow; the client's are far below
/// (`MaxAllocSize / sizeof(ParamExternData)` is, at 24 bytes each, 44 million).
const FIRST_LIFTED: i32 = 1 << 28;

/// Constants that a statement may have lifted; one with more is not worth it.
const MOST_CONSTANTS: usize = 200;

struct Gatherer {
    hash: u64,
    constants: Vec<*mut pg_sys::Const>,
}

impl Gatherer {
    fn mix(&mut self, value: u32) {
        self.hash =
            (self.hash ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    /// Reads an expression in which constants may be lifted.
    ///
    /// # Safety
    ///
    /// `n` is null or a live expression.
    unsafe fn read<T>(&mut self, n: *mut T) {
        // SAFETY: the caller vouches for the tree; each node is cast to the struct of its tag.
        unsafe {
            node::walk(n, &mut |n| {
                let tag = node::tag(n);
                self.mix(tag as u32);
                match tag {
                    // A sub-query is compared as it stands.
                    NodeTag::T_Query => return Visit::Skip,
                    NodeTag::T_Const => {
                        let constant = n.cast::<pg_sys::Const>();
                        self.mix((*constant).consttype.to_u32());
                        // A constant of type unknown has no type yet: what it is taken for depends on where it stands.
                        if (*constant).consttype != pg_sys::UNKNOWNOID
                            && is_binary_safe((*constant).consttype)
                        {
                            self.constants.push(constant);
                        }
                    }
                    NodeTag::T_Var => self.mix((*n.cast::<pg_sys::Var>()).varattno as u32),
                    NodeTag::T_OpExpr => self.mix((*n.cast::<pg_sys::OpExpr>()).opno.to_u32()),
                    NodeTag::T_FuncExpr => {
                        let function = n.cast::<pg_sys::FuncExpr>();
                        self.mix((*function).funcid.to_u32());
                        if (*function).funcformat == pg_sys::CoercionForm::COERCE_SQL_SYNTAX {
                            // EXTRACT(month FROM ...), NORMALIZE(..., NFC): ruleutils takes for a constant what the
                            // grammar made one, without looking (`get_func_sql_syntax`, `ruleutils.c`).
                            return Visit::Skip;
                        }
                        if (*function).funcformat != pg_sys::CoercionForm::COERCE_EXPLICIT_CALL {
                            // A cast: its further arguments are a length that ruleutils must see.
                            if node::length((*function).args) > 0 {
                                self.read(node::nth::<pg_sys::Node>((*function).args, 0));
                            }
                            return Visit::Skip;
                        }
                    }
                    _ => {}
                }
                Visit::Into
            });
        }
    }
}

impl Statement {
    /// The statement's shape; none if it is of no kind whose constants are lifted.
    pub fn shape(&self) -> Option<Fingerprint> {
        // SAFETY: a live Query of the planner hook, or a copy of one; nothing is changed.
        unsafe {
            let query = &*self.parse;
            let mut gatherer = Gatherer {
                // Which constants travel depends on the client's encoding.
                hash: pg_sys::pg_get_client_encoding() as u64,
                constants: Vec::with_capacity(16),
            };
            gatherer.mix(query.commandType);
            for rte in 0..node::length(query.rtable) {
                let rte: *mut pg_sys::RangeTblEntry = node::nth(query.rtable, rte);
                // Each row of a VALUES list has a shard of its own.
                if (*rte).rtekind == pg_sys::RTEKind::RTE_VALUES {
                    return None;
                }
                gatherer.mix((*rte).relid.to_u32());
            }
            gatherer.mix(node::length(query.targetList) as u32);
            match query.commandType {
                pg_sys::CmdType::CMD_SELECT | pg_sys::CmdType::CMD_DELETE => {}
                pg_sys::CmdType::CMD_INSERT | pg_sys::CmdType::CMD_UPDATE => {
                    gatherer.read(query.targetList);
                }
                _ => return None,
            }
            gatherer.read(query.jointree);
            if !query.onConflict.is_null() {
                // Not the arbiter's predicate: it must imply an index's as it stands.
                gatherer.read((*query.onConflict).onConflictSet);
                gatherer.read((*query.onConflict).onConflictWhere);
            }
            let Gatherer { hash, constants } = gatherer;
            (constants.len() <= MOST_CONSTANTS)
                .then_some(Fingerprint { fingerprint: hash, constants })
        }
    }

    /// A private copy of the statement in which parameters stand for the constants.
    pub fn lifted(&self) -> Option<Statement> {
        // SAFETY: a live Query; the copy is ours. A Param is smaller than the Const that it takes the memory of.
        unsafe {
            let copy = Statement { parse: node::copy(self.parse) };
            for (index, constant) in copy.shape()?.constants.into_iter().enumerate() {
                let pg_sys::Const { consttype, consttypmod, constcollid, .. } = *constant;
                constant.cast::<pg_sys::Param>().write(pg_sys::Param {
                    xpr: pg_sys::Expr { type_: NodeTag::T_Param },
                    paramkind: pg_sys::ParamKind::PARAM_EXTERN,
                    paramid: FIRST_LIFTED + index as i32,
                    paramtype: consttype,
                    paramtypmod: consttypmod,
                    paramcollid: constcollid,
                    location: -1,
                });
            }
            Some(copy)
        }
    }
}

const _: () = assert!(size_of::<pg_sys::Param>() <= size_of::<pg_sys::Const>());

/// The plan of a shape, kept beyond the statement for which it was made. Plans for statements share its nodes and keep
/// it alive as long as they live.
#[derive(Debug)]
pub struct FingerprintPlan {
    memory: pg_sys::MemoryContext,
    query: *mut pg_sys::Query,
    constants: Vec<*mut pg_sys::Const>,
    plan: *mut pg_sys::PlannedStmt,
}

impl FingerprintPlan {
    /// Keeps the plan that was made of `statement` lifted.
    pub fn keep(statement: Statement, plan: Plan) -> Rc<Self> {
        // SAFETY: live trees; the copies live in a context of our own, which goes with this value.
        unsafe {
            let memory = pg_sys::AllocSetContextCreateInternal(
                pg_sys::CacheMemoryContext,
                c"pg_shard shape".as_ptr(),
                0,
                1024,
                64 * 1024,
            );
            let before = pg_sys::MemoryContextSwitchTo(memory);
            let query = node::copy(statement.parse);
            let plan = node::copy(plan.0);
            pg_sys::MemoryContextSwitchTo(before);
            let constants = Statement { parse: query }.shape().map(|shape| shape.constants);
            let kept = Self { memory, query, constants: constants.unwrap_or_default(), plan };
            kept.forget_constants();
            Rc::new(kept)
        }
    }

    /// The constants of the statement that was compared last go with its memory.
    fn forget_constants(&self) {
        for constant in &self.constants {
            // SAFETY: nodes of our own copy.
            unsafe {
                (**constant).constisnull = true;
                (**constant).constvalue = pg_sys::Datum::from(0);
            }
        }
    }

    /// The plan for `statement`, if that is of this shape.
    pub fn plan_for(self: &Rc<Self>, statement: Statement, shape: &Fingerprint) -> Option<Plan> {
        if self.constants.len() != shape.constants.len() {
            return None;
        }
        // SAFETY: as below. `equal` reads the values as what our constants say that they are.
        let same_types = self.constants.iter().zip(&shape.constants).all(|(ours, theirs)| unsafe {
            (**ours).consttype == (**theirs).consttype
                && (**ours).constlen == (**theirs).constlen
                && (**ours).constbyval == (**theirs).constbyval
        });
        if !same_types {
            return None;
        }
        // SAFETY: both trees are live; ours is changed in its constants and in the length of its text only, for the
        // time of the comparison. What `equal` does not look at (locations, the query id) no plan depends on.
        unsafe {
            for (ours, theirs) in self.constants.iter().zip(&shape.constants) {
                (**ours).constisnull = (**theirs).constisnull;
                (**ours).constvalue = (**theirs).constvalue;
            }
            (*self.query).stmt_len = (*statement.parse).stmt_len;
            let is_same = pg_sys::equal(self.query.cast(), statement.parse.cast());
            self.forget_constants();
            if !is_same {
                return None;
            }
            Some(Plan(self.instantiate(statement, shape)))
        }
    }
}

impl FingerprintPlan {
    /// The plan for one statement: its own top, expressions and query id; everything else is shared.
    ///
    /// The executor changes nothing in a plan, and the plan cache copies what it keeps. Whoever plans throws the memory
    /// away in which the plan was made when it needs the plan no more, and only then the shared part is let go.
    unsafe fn instantiate(
        self: &Rc<Self>,
        statement: Statement,
        shape: &Fingerprint,
    ) -> *mut pg_sys::PlannedStmt {
        // SAFETY: live trees, of which the nodes that differ are copied; constants are nodes of the statement, which
        // lives as long as its plan. The callback keeps our memory until the current context goes.
        unsafe {
            let plan = shallow_copy(self.plan);
            (*plan).queryId = (*statement.parse).queryId;
            (*plan).stmt_location = (*statement.parse).stmt_location;
            (*plan).stmt_len = (*statement.parse).stmt_len;
            let top = (*plan).planTree;
            let scan = match node::cast::<pg_sys::CustomScan, _>(top, NodeTag::T_CustomScan) {
                Some(scan) => {
                    let scan = shallow_copy(scan);
                    (*plan).planTree = scan.cast();
                    scan
                }
                // What makes it scrollable stands above.
                None => {
                    let above = node::copy(top);
                    (*plan).planTree = above;
                    (*above).lefttree.cast()
                }
            };
            let expressions: Vec<*mut pg_sys::Node> =
                node::elements::<pg_sys::Node>((*scan).custom_exprs)
                    .into_iter()
                    .map(|expression| with_constants(expression, shape))
                    .collect();
            (*scan).custom_exprs = node::list_of(&expressions);
            pgrx::PgMemoryContexts::CurrentMemoryContext.leak_and_drop_on_delete(Rc::clone(self));
            plan
        }
    }
}

impl Drop for FingerprintPlan {
    fn drop(&mut self) {
        // SAFETY: ours, deleted once, when no plan shares it any more.
        unsafe { pg_sys::MemoryContextDelete(self.memory) }
    }
}

/// A node's own fields in new memory; what they point to is shared.
unsafe fn shallow_copy<T>(original: *const T) -> *mut T {
    // SAFETY: the caller passes a live node of type `T`.
    unsafe {
        let copy = pg_sys::palloc(size_of::<T>()).cast::<T>();
        std::ptr::copy_nonoverlapping(original, copy, 1);
        copy
    }
}

/// An expression with the constants in place of the parameters that stand for them.
unsafe fn with_constants(n: *mut pg_sys::Node, shape: &Fingerprint) -> *mut pg_sys::Node {
    // SAFETY: the caller passes a live expression; a lifted parameter's number is below the count of constants.
    unsafe {
        let constant_of = |n: *mut pg_sys::Node| {
            let param = node::cast::<pg_sys::Param, _>(n, NodeTag::T_Param)?;
            let index = usize::try_from((*param).paramid.checked_sub(FIRST_LIFTED)?).ok()?;
            ((*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN).then(|| {
                shape.constants.get(index).map(|constant| constant.cast::<pg_sys::Node>())
            })?
        };
        match constant_of(n) {
            Some(constant) => constant,
            None if node::tag(n) == NodeTag::T_Const || node::tag(n) == NodeTag::T_Param => n,
            None => node::rewrite(n, &mut |part| constant_of(part)),
        }
    }
}
