//! A database that is odd but healthy: everything that the stock tools dump and
//! restore without a change.

use super::cluster::{Cluster, Role, ident};

/// What its owner can make, and what only a superuser can.
const OF_OWNER: &str = include_str!("odd/owner.sql");
const OF_SUPERUSER: &str = include_str!("odd/superuser.sql");

/// Such a database, and the roles that it names.
pub(crate) struct Odd {
    pub(crate) name: String,
    pub(crate) owner: Role,
    pub(crate) reader: Role,
    pub(crate) writer: Role,
}

impl Odd {
    /// One that its owner, who is no superuser, made alone and can dump.
    pub(crate) fn of_owner(cluster: &Cluster) -> Self {
        let [owner, reader, writer] =
            [r#"Odd "Owner""#, "it's a reader", "writer"].map(|stem| cluster.role(stem, "LOGIN"));
        let options = format!("OWNER {} ENCODING 'UTF8' LC_COLLATE 'C' TEMPLATE template0", ident(&owner.name));
        let name = cluster.create_db(r#"Odd "Database" 'of' \ \%s $1"#, &options);
        let odd = Self { name, owner, reader, writer };
        odd.run(cluster, OF_OWNER, &odd.owner.name, "");
        odd
    }

    /// The same, with what only a superuser can make, dump and restore.
    pub(crate) fn of_superuser(cluster: &Cluster) -> Self {
        let odd = Self::of_owner(cluster);
        odd.run(cluster, OF_SUPERUSER, "postgres", &cluster.tablespace("other place"));
        odd
    }

    fn run(&self, cluster: &Cluster, script: &str, user: &str, tablespace: &str) {
        let roles = [("owner", &self.owner), ("reader", &self.reader), ("writer", &self.writer)];
        let mut variables: Vec<String> = roles.iter().map(|(name, role)| format!("{name}={}", role.name)).collect();
        variables.push(format!("tablespace={tablespace}"));
        let options = variables.iter().flat_map(|variable| ["-v", variable]);
        cluster.psql(&self.name, script, options).env("PGUSER", user).run().ok();
    }
}
