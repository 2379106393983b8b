//! Programs that stand in for those of PostgreSQL.

use std::path::Path;

use super::served::Served;

/// Puts a pg_dump into the directory `bin` of `served` that runs `script`. There
/// `$REAL` is the server's own pg_dump, and is what tells the version.
pub(crate) fn pg_dump(served: &Served<'_>, script: &str) -> String {
    let real = served.cluster.program("pg_dump");
    let text = format!("#!/bin/sh\nREAL={real}\n[ \"$1\" != --version ] || exec $REAL --version\n{script}\n");
    install(served, "pg_dump", &text)
}

/// Puts a program into the directory `bin`, and gives back where that is.
pub(crate) fn install(served: &Served<'_>, name: &str, text: &str) -> String {
    let (env, dir) = (&served.env, served.env.mkdir("bin"));
    let from = env.write(format!("{name}.sh"), text);
    // By another process: what is open for writing here, a child of another test may have open too.
    env.run("install", ["-m", "755", path(&from), path(&dir.join(name))]).ok();
    path(&dir).to_owned()
}

/// The configuration of the source that takes its programs from there.
pub(crate) fn bin_dir(dir: &str) -> String {
    format!("          bin_dir: {dir}\n")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary names are UTF-8")
}
