//! Private database servers: PostgreSQL, MariaDB and OpenLDAP, each in a separate directory, on a
//! separate socket and port, as a user without privileges, ended by its process id.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::Daemon;
use crate::eventually;
use crate::scratch::{Scratch, loopback_host, needs_root};

/// Debian's "nobody" and "nogroup".
const NOBODY: u32 = 65534;
/// How long a server may take to come up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// PostgreSQL.
    Pgsql,
    /// MariaDB.
    Mariadb,
    /// OpenLDAP's slapd.
    Slapd,
}

/// A database server; ended when dropped.
pub struct Database {
    product: Product,
    scratch: Scratch,
    host: String,
    daemon: Option<Daemon>,
}

/// Password of the user that the tables use.
pub const PASSWORD: &str = "it's \\a %s secret";

/// Base of the directory.
pub const BASE: &str = "dc=example,dc=org";

impl Database {
    /// Starts a server with an empty database called "mail", which the user "reader" may read
    /// with [`PASSWORD`]; for slapd, a directory with [`BASE`] alone.
    pub fn start(product: Product) -> Self {
        needs_root("database servers refuse to run as root and are started as nobody");
        let scratch = Scratch::new("database");
        scratch.mkdir_owned("data", NOBODY, NOBODY);
        scratch.mkdir_owned("run", NOBODY, NOBODY);
        let mut database = Self {
            product,
            scratch,
            host: loopback_host(),
            daemon: None,
        };
        database.initialize();
        database.run();
        database.prepare();
        database
    }

    /// Where it is reached: `hosts` of an SQL table or `server_host` of a directory.
    pub fn host(&self) -> String {
        match self.product {
            Product::Pgsql | Product::Mariadb => format!("inet:{}:{}", self.host, self.port()),
            Product::Slapd => format!("ldap://{}:{}", self.host, self.port()),
        }
    }

    /// The same by a UNIX-domain socket.
    pub fn socket(&self) -> String {
        let run = self.scratch.join("run").display().to_string();
        match self.product {
            Product::Pgsql => format!("unix:{run}"),
            Product::Mariadb => format!("unix:{run}/mysqld.sock"),
            Product::Slapd => format!("ldapi://{}", format!("{run}/ldapi").replace('/', "%2F")),
        }
    }

    fn port(&self) -> u16 {
        match self.product {
            // A path of a socket says nothing of the port.
            Product::Pgsql => 5432,
            Product::Mariadb => 13306,
            Product::Slapd => 10389,
        }
    }

    /// The process.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the server runs")
    }

    /// Ends the server; its data stay.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // PostgreSQL's SIGTERM would wait for its clients.
            let signal = match self.product {
                Product::Pgsql => nix::sys::signal::Signal::SIGINT,
                Product::Mariadb | Product::Slapd => nix::sys::signal::Signal::SIGTERM,
            };
            daemon.signal(signal);
            daemon.wait();
        }
    }

    fn nobody(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // MariaDB removes from a shared one what another MariaDB is working with.
        let temporary = self.scratch.mkdir_owned("tmp", NOBODY, NOBODY);
        command
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir(self.scratch.join("data"))
            .env("HOME", self.scratch.join("data"))
            .env("TMPDIR", temporary);
        command
    }

    fn initialize(&self) {
        let data = self.scratch.join("data");
        match self.product {
            Product::Pgsql => {
                let mut command = self.nobody(&pg_program("initdb"));
                command
                    .args(["--no-sync", "--auth=scram-sha-256", "--auth-local=trust"])
                    .args(["--username=nobody", "--encoding=UTF8", "--locale=C", "-D"])
                    .arg(&data)
                    .arg(format!(
                        "--pwfile={}",
                        self.scratch.write("pw", "nobody").display()
                    ));
                done(&mut command, "");
            }
            Product::Mariadb => {
                let mut command = self.nobody("/usr/bin/mariadb-install-db");
                command
                    .args(["--no-defaults", "--auth-root-authentication-method=normal"])
                    .args(["--skip-test-db", "--innodb-flush-log-at-trx-commit=0"])
                    .arg(format!("--datadir={}", data.display()));
                done(&mut command, "");
            }
            Product::Slapd => {
                self.scratch.write("slapd.conf", slapd_conf(&data));
                let base = format!(
                    "dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: example\n\
                     dc: example\n"
                );
                let mut command = self.nobody("/usr/sbin/slapadd");
                command
                    .arg("-q")
                    .arg("-f")
                    .arg(self.scratch.join("slapd.conf"));
                done(&mut command, &base);
            }
        }
    }

    /// Starts the server, again after [`Database::stop`], and waits until it answers.
    pub fn run(&mut self) {
        let (data, run) = (self.scratch.join("data"), self.scratch.join("run"));
        let mut command = match self.product {
            Product::Pgsql => {
                let mut command = self.nobody(&pg_program("postgres"));
                command.arg("-D").arg(&data).arg("-k").arg(&run).args([
                    "-h",
                    &self.host,
                    "-p",
                    &self.port().to_string(),
                    "-F",
                ]);
                command
            }
            Product::Mariadb => {
                let mut command = self.nobody("/usr/sbin/mariadbd");
                command
                    .args(["--no-defaults", "--skip-name-resolve"])
                    .args([
                        "--innodb-flush-log-at-trx-commit=0",
                        "--character-set-server=utf8mb4",
                    ])
                    .arg(format!("--datadir={}", data.display()))
                    .arg(format!("--socket={}/mysqld.sock", run.display()))
                    .arg(format!("--bind-address={}", self.host))
                    .arg(format!("--port={}", self.port()));
                command
            }
            Product::Slapd => {
                let mut command = self.nobody("/usr/sbin/slapd");
                command
                    .arg("-f")
                    .arg(self.scratch.join("slapd.conf"))
                    .args(["-d", "0", "-h"])
                    .arg(format!("{} {}", self.host(), self.socket()));
                command
            }
        };
        let mut daemon = Daemon::start(&mut command, &self.scratch.join("log"));
        eventually(&format!("{:?} to answer", self.product), TIMEOUT, || {
            assert!(daemon.status().is_none(), "it ended:\n{}", daemon.log());
            let output = self
                .client()
                .stdin(Stdio::null())
                .output()
                .expect("the client starts");
            output.status.success().then_some(())
        });
        self.daemon = Some(daemon);
    }

    fn prepare(&self) {
        let quoted = PASSWORD.replace('\'', "''");
        match self.product {
            Product::Pgsql => self.feed(&format!(
                "CREATE DATABASE mail TEMPLATE template0 ENCODING SQL_ASCII;\n\
                 CREATE ROLE reader LOGIN PASSWORD '{quoted}';\n\
                 \\c mail\nALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader;\n"
            )),
            Product::Mariadb => self.feed(&format!(
                "CREATE DATABASE mail CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n\
                 CREATE USER reader@'%' IDENTIFIED BY '{0}';\n\
                 CREATE USER reader@localhost IDENTIFIED BY '{0}';\n\
                 GRANT SELECT ON mail.* TO reader@'%';\n\
                 GRANT SELECT ON mail.* TO reader@localhost;\n",
                quoted.replace('\\', "\\\\")
            )),
            Product::Slapd => {}
        }
    }

    /// The client program of the product, as its administrator; without input it only connects.
    fn client(&self) -> Command {
        let run = self.scratch.join("run").display().to_string();
        match self.product {
            Product::Pgsql => {
                let mut command = self.nobody(&pg_program("psql"));
                command
                    .args(["-h", &run, "-p", &self.port().to_string(), "-U", "nobody"])
                    .args(["-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]);
                command
            }
            Product::Mariadb => {
                let mut command = self.nobody("/usr/bin/mariadb");
                command
                    .args(["--no-defaults", "--default-character-set=utf8mb4", "-uroot"])
                    .arg(format!("--socket={run}/mysqld.sock"));
                command
            }
            Product::Slapd => {
                let mut command = self.nobody("/usr/bin/ldapadd");
                command
                    .args(["-x", "-D", &format!("cn=reader,{BASE}"), "-w", PASSWORD])
                    .args(["-H", &self.socket()]);
                command
            }
        }
    }

    /// Gives the administrator's client `text`: SQL, or LDIF.
    ///
    /// # Panics
    /// The server refuses some of it.
    pub fn feed(&self, text: &str) {
        done(&mut self.client(), text);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// Programs of PostgreSQL's newest version on this machine.
fn pg_program(name: &str) -> String {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("install postgresql");
    let paths = versions.map(|version| version.expect("readdir").path().join("bin").join(name));
    let newest: Option<PathBuf> = paths.filter(|path| path.exists()).max();
    newest.expect("install postgresql").display().to_string()
}

fn slapd_conf(data: &Path) -> String {
    format!(
        "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
         include /etc/ldap/schema/inetorgperson.schema\nallow bind_v2\n\
         modulepath /usr/lib/ldap\nmoduleload back_mdb.la\n\
         database mdb\nsuffix {BASE}\nrootdn cn=reader,{BASE}\nrootpw \"{}\"\n\
         directory {}\nmaxsize 67108864\ndbnosync\nindex mail eq\n",
        PASSWORD.replace('\\', "\\\\"),
        data.display()
    )
}

fn done(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.as_bytes().to_vec();
    // A program that gives up early closes its end; its status says so.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("our own child");
    writer.join().expect("the writer does not panic");
    assert!(output.status.success(), "{command:?}: {output:?}");
}
