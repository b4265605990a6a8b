//! The servers that have the data of a table, and the connections to them.
//!
//! A lookup goes to one server; when it does not answer, to the next. Source: mysql_table(5) and
//! pgsql_table(5), "hosts". One difference: a server that failed is left alone for a minute as in
//! Postfix, but while no other is left it is tried again each second, so that mail flows soon after
//! a database was restarted.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::chance::below;
use crate::clock;
use crate::limits::DATABASE_CONNECTIONS_MAX;
use crate::sync::Mutex;

/// How long a server that failed is left alone while there are others.
const REST: Duration = Duration::from_secs(60);
/// How long it is left alone while there are none.
const SHORT_REST: Duration = Duration::from_secs(1);
/// A connection not used for so long is closed rather than used again.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Why a server gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection cannot be made, or not be used any more.
    Broken(String),
    /// The server is well, and says that it will not answer this.
    Refused(String),
    /// The server is well, but its answer was not read to its end: the connection is of no more
    /// use.
    Abandoned(String),
}

/// How to talk to one server.
pub(super) trait Server: Send + Sync + 'static {
    /// An open connection.
    type Connection: Send + 'static;
    /// What is asked.
    type Question: Send + Sync + 'static;
    /// What is answered.
    type Answer: Send + 'static;

    /// Connects.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;

    /// Asks.
    fn ask(
        &self,
        connection: &mut Self::Connection,
        question: &Self::Question,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;

    /// What identifies the data behind new connections; a connection made when this was another
    /// is not used again.
    fn generation(&self) -> u64 {
        0
    }
}

/// In which order servers are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By chance, those on this machine (UNIX-domain sockets) first.
    Chance,
    /// As listed.
    Listed,
}

/// All servers of a table.
pub(super) struct Hosts<S: Server> {
    hosts: Vec<Host<S>>,
    order: Order,
    timeout: Duration,
}

struct Host<S: Server> {
    name: String,
    is_local: bool,
    server: S,
    idle: Mutex<Vec<Idle<S::Connection>>>,
    permits: Semaphore,
    /// When it failed last, and how, unless it answered since.
    down: Mutex<Option<(Instant, String)>>,
}

struct Idle<C> {
    connection: C,
    since: Instant,
    generation: u64,
}

impl<S: Server> Hosts<S> {
    /// Servers with their names for messages and whether they are on this machine; `timeout` is
    /// what each is given for one question, a new connection included.
    pub(super) fn new(servers: Vec<(String, bool, S)>, order: Order, timeout: Duration) -> Self {
        let hosts = servers.into_iter().map(|(name, is_local, server)| Host {
            name,
            is_local,
            server,
            idle: Mutex::default(),
            permits: Semaphore::new(DATABASE_CONNECTIONS_MAX),
            down: Mutex::new(None),
        });
        Self {
            hosts: hosts.collect(),
            order,
            timeout,
        }
    }

    /// Asks one server after the other until one answers.
    ///
    /// # Errors
    /// None did; the text says what each said.
    pub(super) async fn ask(&self, question: &S::Question) -> Result<S::Answer, String> {
        let mut said = Vec::new();
        for host in self.in_order() {
            let asked = timeout(self.timeout, host.ask(question)).await;
            let answer = asked.unwrap_or_else(|_| {
                host.idle.lock().clear();
                let seconds = self.timeout.as_secs();
                Err(Failure::Broken(format!("no answer within {seconds} s")))
            });
            match answer {
                Ok(answer) => {
                    *host.down.lock() = None;
                    return Ok(answer);
                }
                Err(Failure::Refused(cause) | Failure::Abandoned(cause)) => {
                    said.push(format!("{}: {cause}", host.name))
                }
                Err(Failure::Broken(cause)) => {
                    said.push(format!("{}: {cause}", host.name));
                    *host.down.lock() = Some((clock::now(), cause));
                }
            }
        }
        if said.is_empty() {
            said.extend(self.hosts.iter().filter_map(Host::last_trouble));
        }
        Err(said.join("; "))
    }

    /// Those to try now.
    fn in_order(&self) -> Vec<&Host<S>> {
        let rested = |rest: Duration| {
            let hosts = self.hosts.iter();
            hosts.filter(move |host| host.has_rested(rest)).collect()
        };
        let mut hosts: Vec<&Host<S>> = rested(REST);
        if hosts.is_empty() {
            hosts = rested(SHORT_REST);
        }
        if self.order == Order::Chance {
            for at in (1..hosts.len()).rev() {
                hosts.swap(at, below(at + 1));
            }
            hosts.sort_by_key(|host| !host.is_local);
        }
        hosts
    }
}

impl<S: Server> Host<S> {
    fn has_rested(&self, rest: Duration) -> bool {
        let down = self.down.lock();
        down.as_ref()
            .is_none_or(|(at, _)| clock::now().saturating_duration_since(*at) >= rest)
    }

    fn last_trouble(&self) -> Option<String> {
        let down = self.down.lock();
        let (_, cause) = down.as_ref()?;
        Some(format!("{}: {cause} (a moment ago)", self.name))
    }

    async fn ask(&self, question: &S::Question) -> Result<S::Answer, Failure> {
        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(|closed| Failure::Broken(closed.to_string()))?;
        let generation = self.server.generation();
        if let Some(mut connection) = self.take_idle(generation) {
            match self.server.ask(&mut connection, question).await {
                // The server was restarted, or closed what was idle for too long for its taste.
                Err(Failure::Broken(_)) => self.idle.lock().clear(),
                abandoned @ Err(Failure::Abandoned(_)) => return abandoned,
                answer => {
                    self.put_idle(connection, generation);
                    return answer;
                }
            }
        }
        let mut connection = self.server.connect().await?;
        let answer = self.server.ask(&mut connection, question).await;
        if !matches!(answer, Err(Failure::Broken(_) | Failure::Abandoned(_))) {
            self.put_idle(connection, generation);
        }
        answer
    }

    fn take_idle(&self, generation: u64) -> Option<S::Connection> {
        let mut idle = self.idle.lock();
        let now = clock::now();
        idle.retain(|idle| {
            idle.generation == generation && now.saturating_duration_since(idle.since) < IDLE_MAX
        });
        idle.pop().map(|idle| idle.connection)
    }

    fn put_idle(&self, connection: S::Connection, generation: u64) {
        self.idle.lock().push(Idle {
            connection,
            since: clock::now(),
            generation,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// What a server of the tests does now.
    #[derive(Default)]
    struct State {
        is_down: AtomicBool,
        hangs: AtomicBool,
        connects: AtomicUsize,
    }

    struct Fake(Arc<State>);

    impl Server for Fake {
        type Connection = ();
        type Question = ();
        type Answer = ();

        async fn connect(&self) -> Result<(), Failure> {
            self.0.connects.fetch_add(1, Ordering::SeqCst);
            self.ask(&mut (), &()).await
        }

        async fn ask(&self, _: &mut (), _question: &()) -> Result<(), Failure> {
            if self.0.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            match self.0.is_down.load(Ordering::SeqCst) {
                true => Err(Failure::Broken("down".to_owned())),
                false => Ok(()),
            }
        }
    }

    fn hosts(count: usize) -> (Vec<Arc<State>>, Hosts<Fake>) {
        let states: Vec<_> = (0..count).map(|_| Arc::new(State::default())).collect();
        let servers = states.iter().enumerate();
        let servers = servers.map(|(n, s)| (format!("host{n}"), false, Fake(Arc::clone(s))));
        let hosts = Hosts::new(servers.collect(), Order::Chance, Duration::from_millis(100));
        (states, hosts)
    }

    fn run<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
        let driver = super::super::runtime::Driver::start().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        driver.spawn(async move { tell.send(work.await).unwrap() });
        told.recv().unwrap()
    }

    #[test]
    fn connections_are_used_again() {
        let (states, hosts) = hosts(1);
        run(async move {
            for _ in 0..3 {
                hosts.ask(&()).await.unwrap();
            }
        });
        assert_eq!(states[0].connects.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn another_server_is_asked_when_one_is_down_and_that_one_rests() {
        let (states, hosts) = hosts(2);
        states[0].is_down.store(true, Ordering::SeqCst);
        run(async move {
            for _ in 0..50 {
                hosts.ask(&()).await.unwrap();
            }
        });
        assert!(states[0].connects.load(Ordering::SeqCst) <= 1);
    }

    #[test]
    fn a_server_that_hangs_is_given_up_and_the_next_one_asked() {
        let (states, hosts) = hosts(2);
        states[1].hangs.store(true, Ordering::SeqCst);
        run(async move {
            for _ in 0..20 {
                hosts.ask(&()).await.unwrap();
            }
        });
        assert!(states[1].connects.load(Ordering::SeqCst) <= 1);
    }

    #[test]
    fn while_all_are_down_lookups_fail_at_once_and_say_why() {
        let (states, hosts) = hosts(2);
        for state in &states {
            state.is_down.store(true, Ordering::SeqCst);
        }
        let errors = run(async move {
            let first = hosts.ask(&()).await.unwrap_err();
            (first, hosts.ask(&()).await.unwrap_err())
        });
        assert!(errors.0.contains("host0: down") && errors.0.contains("host1: down"));
        assert!(errors.1.contains("a moment ago"), "{errors:?}");
        assert_eq!(states[0].connects.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn servers_on_this_machine_are_tried_first() {
        let server = || Fake(Arc::default());
        let servers = vec![
            ("far".to_owned(), false, server()),
            ("near".to_owned(), true, server()),
        ];
        let hosts = Hosts::new(servers, Order::Chance, REST);
        for _ in 0..20 {
            assert_eq!(hosts.in_order()[0].name, "near");
        }
    }
}
