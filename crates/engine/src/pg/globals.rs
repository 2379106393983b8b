//! Roles as SQL: what the databases of a dump need before they can be restored
//! elsewhere. No passwords.

use lifeboat_format::record::{Role, Setting};

use super::facts;
use super::session::{ident, literal, quoted};

/// What the roles of a new server are without being told.
const WITHOUT_BEING_TOLD: &str = "INHERIT";

/// The statements that make `roles`, in an order that works: all are there
/// before one is given to another.
pub(crate) fn statements(roles: &[Role]) -> Vec<String> {
    let mut statements = Vec::new();
    for role in roles {
        statements.push(format!("CREATE ROLE {}", ident(&role.name)));
        let options = options(role);
        if !options.is_empty() {
            statements.push(format!("ALTER ROLE {} WITH {options}", ident(&role.name)));
        }
        if let Some(comment) = &role.comment {
            statements.push(format!("COMMENT ON ROLE {} IS {}", ident(&role.name), literal(comment)));
        }
    }
    for role in roles {
        let name = ident(&role.name);
        statements.extend(role.member_of.iter().map(|group| format!("GRANT {} TO {name}", ident(group))));
        statements.extend(role.settings.iter().map(|setting| {
            let of_role = Setting { role: Some(role.name.clone()), ..setting.clone() };
            facts::set(None, &of_role)
        }));
    }
    statements
}

/// What a role is told to be, beyond what it is without.
fn options(role: &Role) -> String {
    let mut options: Vec<String> =
        role.options.iter().filter(|option| *option != WITHOUT_BEING_TOLD).cloned().collect();
    if !role.options.iter().any(|option| option == WITHOUT_BEING_TOLD) {
        options.push(format!("NO{WITHOUT_BEING_TOLD}"));
    }
    if role.connection_limit >= 0 {
        options.push(format!("CONNECTION LIMIT {}", role.connection_limit));
    }
    options.extend(role.valid_until.iter().map(|until| format!("VALID UNTIL {}", literal(until))));
    options.join(" ")
}

/// A script of them for psql, which says what it is: the roles that `source` names.
pub(crate) fn script(source: &str, roles: &[Role]) -> String {
    let mut script = format!(
        "-- The roles that the databases of {} name, without their passwords: psql -f globals.sql postgres\n\
         -- A role that is there already is an error that does not matter.\n\n\
         SET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n\n",
        quoted(source)
    );
    for statement in statements(roles) {
        script.push_str(&statement);
        script.push_str(";\n");
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows D4.
    #[test]
    fn roles_are_made_before_they_are_given_to_each_other() {
        let group = Role { name: "gr\"oup".to_owned(), connection_limit: -1, ..Role::default() };
        let member = Role {
            name: "app".to_owned(),
            options: ["INHERIT", "LOGIN", "CREATEDB"].map(str::to_owned).to_vec(),
            connection_limit: 5,
            valid_until: Some("2030-01-01 00:00:00+00".to_owned()),
            member_of: vec![group.name.clone(), "pg_monitor".to_owned()],
            settings: vec![Setting { role: None, name: "work_mem".to_owned(), value: "8MB".to_owned() }],
            comment: Some("it's".to_owned()),
        };
        let expected = [
            "CREATE ROLE \"app\"",
            "ALTER ROLE \"app\" WITH LOGIN CREATEDB CONNECTION LIMIT 5 VALID UNTIL '2030-01-01 00:00:00+00'",
            "COMMENT ON ROLE \"app\" IS 'it''s'",
            "CREATE ROLE \"gr\"\"oup\"",
            "ALTER ROLE \"gr\"\"oup\" WITH NOINHERIT",
            "GRANT \"gr\"\"oup\" TO \"app\"",
            "GRANT \"pg_monitor\" TO \"app\"",
            "ALTER ROLE \"app\" SET \"work_mem\" TO '8MB'",
        ];
        assert_eq!(statements(&[member.clone(), group]), expected);
        assert!(script("d\nb", &[member]).starts_with("-- The roles that the databases of d\\nb name"));
    }
}
