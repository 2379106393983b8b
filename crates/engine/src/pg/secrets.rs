//! Columns whose content must not get into an export. Two things are looked at:
//! which column of which table each column of the answer is, as the server says
//! of a statement; and what the plan of the statement hands on, which also shows
//! what goes through expressions, views and set operations. The plan may show
//! more than gets into the answer (to sort by a secret column, for example):
//! that is refused as well.

use std::collections::{BTreeMap, BTreeSet};

use postgres::Statement;
use serde::Deserialize;

use super::Session;
use crate::config::{Export, SecretColumn};
use crate::{Cancel, Error, ErrorKind, Result};

/// Parts of a plan whose rows are not those of the part above: its output does not say what is in theirs.
const APART: [&str; 4] = ["Subquery", "InitPlan", "SubPlan", "Member"];
/// As [`APART`], for all that is below such a node.
const SET_OPERATIONS: [&str; 2] = ["Recursive Union", "SetOp"];

/// Nodes that do not tell what they are made of; it is what others take from their tables.
const SILENT: &str = "Values Scan";

/// Secret columns of one database.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// By table (its OID) and number of the column, what it is called in the configuration.
    by_origin: BTreeMap<(u32, i16), String>,
    /// The tables, with those that their rows are in, by schema and name, and the columns of each.
    by_table: BTreeMap<(String, String), BTreeMap<String, String>>,
}

/// Finds `columns` in the database of `session`, with the tables that inherit them: partitions are such.
///
/// # Errors
/// When one is not there.
pub(super) fn find(session: &mut Session, columns: &[&SecretColumn], cancel: &Cancel) -> Result<Secrets> {
    let sql = "WITH RECURSIVE family(oid) AS ( \
                 SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
                   AND CASE WHEN $2::text IS NULL THEN n.nspname NOT LIKE 'pg\\_%' ELSE n.nspname = $2 END \
                 UNION SELECT i.inhrelid FROM pg_inherits i JOIN family f ON i.inhparent = f.oid) \
               SELECT c.oid, a.attnum, n.nspname::text, c.relname::text \
               FROM family f JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace n ON n.oid = c.relnamespace \
               JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attname = $3 AND a.attnum > 0 AND NOT a.attisdropped";
    let mut found = Secrets::default();
    for wanted in columns {
        let rows = session.rows(sql, &[&wanted.table, &wanted.schema, &wanted.column], cancel)?;
        if rows.is_empty() {
            let database = super::quoted(session.database());
            let what = format!("there is no column {} in the database {database}", wanted.text);
            return Err(Error::new(ErrorKind::Usage, what).next(
                "correct `secret_columns` in lifeboat.yaml; one of another database is written DATABASE/TABLE.COLUMN",
            ));
        }
        for row in &rows {
            found.by_origin.insert((row.get(0), row.get(1)), wanted.text.clone());
            let columns = found.by_table.entry((row.get(2), row.get(3))).or_default();
            columns.insert(wanted.column.clone(), wanted.text.clone());
        }
    }
    Ok(found)
}

impl Secrets {
    /// Refuses a statement whose answer holds any of them.
    pub(super) fn refuse(
        &self,
        session: &mut Session,
        statement: &Statement,
        (name, export): (&str, &Export),
        cancel: &Cancel,
    ) -> Result<()> {
        if self.by_origin.is_empty() {
            return Ok(());
        }
        for column in statement.columns() {
            let origin = column.table_oid().zip(column.column_id());
            if let Some(secret) = origin.and_then(|origin| self.by_origin.get(&origin)) {
                let what = format!("its column {} is {secret}", super::quoted(column.name()));
                return Err(refused(name, secret, &what));
            }
        }
        let explain = format!("EXPLAIN (VERBOSE, FORMAT JSON) {}", export.query);
        let text = session.value(&explain, cancel)?.unwrap_or_default();
        let plans: Vec<Explained> = serde_json::from_str(&text).map_err(|error| {
            Error::new(
                ErrorKind::Failed,
                format!("what the server says of the query {name} is not understood: {error}"),
            )
        })?;
        match plans.iter().find_map(|explained| self.handed_on(&explained.plan)) {
            Some(secret) => Err(refused(name, &secret, &format!("it makes use of {secret}"))),
            None => Ok(()),
        }
    }

    /// The secret column that a part of `plan` hands on.
    fn handed_on(&self, plan: &Plan) -> Option<String> {
        let mut aliases = BTreeMap::new();
        self.find_aliases(plan, &mut aliases);
        if aliases.is_empty() {
            return None;
        }
        let mut outputs = BTreeSet::new();
        plan.collect_outputs(false, !plan.has_silent(), &mut outputs);
        let columns = aliases.iter().flat_map(|(alias, columns)| columns.iter().map(move |column| (alias, column)));
        let mut handed_on =
            columns.filter(|(alias, (column, _))| outputs.iter().any(|output| mentions(output, alias, column)));
        handed_on.next().map(|(_, (_, text))| text.clone())
    }

    /// What tables with secret columns are called in `plan`, and these columns.
    fn find_aliases<'a>(&'a self, plan: &Plan, aliases: &mut BTreeMap<String, &'a BTreeMap<String, String>>) {
        if let (Some(schema), Some(table), Some(alias)) = (&plan.schema, &plan.relation, &plan.alias)
            && let Some(columns) = self.by_table.get(&(schema.clone(), table.clone()))
        {
            aliases.insert(alias.clone(), columns);
        }
        plan.plans.iter().for_each(|below| self.find_aliases(below, aliases));
    }
}

fn refused(name: &str, secret: &str, why: &str) -> Error {
    Error::new(ErrorKind::Failed, format!("the query {name} is refused: {why}, which is among `secret_columns`")).next(
        format!("leave {secret} out of the query in lifeboat.yaml; secret columns are not written where anybody can read them"),
    )
}

/// What EXPLAIN says of one statement.
#[derive(Deserialize)]
struct Explained {
    #[serde(rename = "Plan")]
    plan: Plan,
}

/// A node of a plan.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Plan {
    #[serde(rename = "Node Type")]
    node: String,
    #[serde(rename = "Parent Relationship", default)]
    relationship: String,
    #[serde(rename = "Relation Name")]
    relation: Option<String>,
    schema: Option<String>,
    alias: Option<String>,
    #[serde(default)]
    output: Vec<String>,
    #[serde(rename = "Function Call")]
    call: Option<String>,
    #[serde(rename = "Table Function Call")]
    table_call: Option<String>,
    #[serde(default)]
    plans: Vec<Plan>,
}

impl Plan {
    /// What functions are given, and the outputs that tell what gets out of their part of the plan. Below a
    /// node that has one (`is_told`), those of others tell nothing more: what a
    /// node takes from them is written out in its own, and what it does not
    /// take may be a table as it is read. Unless a plan `tells` all.
    fn collect_outputs<'a>(&'a self, is_told: bool, tells: bool, outputs: &mut BTreeSet<&'a str>) {
        outputs.extend(self.call.iter().chain(&self.table_call).map(String::as_str));
        let is_told = is_told && !APART.contains(&self.relationship.as_str());
        if !is_told {
            outputs.extend(self.output.iter().map(String::as_str));
        }
        let is_told = tells && (is_told || !self.output.is_empty()) && !SET_OPERATIONS.contains(&self.node.as_str());
        self.plans.iter().for_each(|below| below.collect_outputs(is_told, tells, outputs));
    }

    fn has_silent(&self) -> bool {
        self.node == SILENT || self.plans.iter().any(Self::has_silent)
    }
}

/// Whether an expression names the column `column` of what is called `alias`, or
/// all of its columns. Where there is only one table, it need not say of which.
fn mentions(expression: &str, alias: &str, column: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '"');
    let ends_word = |rest: &str| !rest.starts_with(is_letter);
    let plain_and_quoted = |name: &str| [name.to_owned(), super::ident(name)];
    let aliases = plain_and_quoted(alias);
    // What stands before a column: nothing, or the alias and a dot.
    let is_ours = |before: &str| match before.strip_suffix('.') {
        None => !before.ends_with(is_letter),
        Some(before) => aliases.iter().any(|alias| before.strip_suffix(alias.as_str()).is_some_and(ends_alone)),
    };
    let of_column = plain_and_quoted(column).iter().any(|column| {
        expression.match_indices(column.as_str()).any(|(at, found)| {
            let rest = &expression[at + found.len()..];
            // A function may be called as the column is.
            ends_word(rest) && !rest.starts_with('(') && is_ours(&expression[..at])
        })
    });
    let whole = aliases.iter().map(|alias| format!("{alias}.*"));
    of_column
        || whole.into_iter().any(|whole| expression.match_indices(&whole).any(|(at, _)| ends_alone(&expression[..at])))
}

/// Whether a name can begin after `before`.
fn ends_alone(before: &str) -> bool {
    !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '"' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows D10.
    #[test]
    fn a_column_is_found_in_an_expression_of_a_plan() {
        for (expression, is_it) in [
            ("c.config", true),
            ("config", true),
            ("(c.config)::text", true),
            ("c.*", true),
            ("\"c\".\"config\"", true),
            ("string_agg((c.config)::text, ','::text)", true),
            ("(c.config).host", true),
            ("c.config_id", false),
            ("c.my_config", false),
            ("d.config", false),
            ("cc.config", false),
            ("d.c.config", false),
            ("config(c.id)", false),
            ("count(*)", false),
            ("cc.*", false),
        ] {
            assert_eq!(mentions(expression, "c", "config"), is_it, "{expression}");
        }
        assert!(mentions("\"My Table\".\"Geheimnis \"\"ü\"\"\"", "My Table", "Geheimnis \"ü\""));
    }

    fn plan(json: serde_json::Value) -> Plan {
        serde_json::from_value(json).unwrap()
    }

    /// Shows D10.
    #[test]
    fn what_a_part_of_a_plan_takes_and_does_not_hand_on_is_no_matter() {
        let secrets = Secrets {
            by_table: BTreeMap::from([(
                ("public".to_owned(), "c".to_owned()),
                BTreeMap::from([("config".to_owned(), "c.config".to_owned())]),
            )]),
            ..Secrets::default()
        };
        let scan = |relationship: &str| {
            serde_json::json!({
                "Node Type": "Seq Scan", "Parent Relationship": relationship, "Relation Name": "c", "Schema": "public",
                "Alias": "c", "Output": ["id", "config"]
            })
        };
        let above = |node: &str, output: &[&str], relationship: &str| {
            let below = scan(relationship);
            plan(serde_json::json!({ "Node Type": node, "Output": output, "Plans": [below] }))
        };
        for (node, output, relationship, is_it) in [
            ("Aggregate", &["count(*)"][..], "Outer", false),
            ("Aggregate", &["max((config)::text)"], "Outer", true),
            ("Subquery Scan", &["q.text"], "Subquery", true),
            ("Result", &["(SubPlan 1)"], "SubPlan", true),
            ("Append", &[], "Member", true),
            ("Recursive Union", &[], "Outer", true),
            ("SetOp", &["id"], "Outer", true),
        ] {
            let found = secrets.handed_on(&above(node, output, relationship));
            assert_eq!(found.is_some(), is_it, "{node}");
        }
        assert_eq!(secrets.handed_on(&plan(scan(""))).as_deref(), Some("c.config"));
    }
}
