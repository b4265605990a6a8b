//! The socketmap server: Postfix asks the same tables that we deliver by.
//!
//! A request is a netstring `map key`, the reply one of `OK value`, `NOTFOUND `, `TEMP reason`,
//! `PERM reason`. Maps have the names of Postfix parameters. Each request is answered out of the
//! tables as they are at that moment. Source: socketmap_table(5).

use crate::shared::Shared;
use crate::waiting::answered;
use mailstow_engine::octets;
use mailstow_engine::route::{RouteError, Router};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};

/// Longest request, in bytes; addresses are a tenth of it.
const REQUEST_BYTES_MAX: usize = 10_000;
/// Longest reply that Postfix takes, in bytes.
const REPLY_BYTES_MAX: usize = 100_000;
/// How long a request is still worked on once the server is to end.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Answers the requests of one connection until it ends, is silent for too long, or the server
/// comes to its end.
pub(crate) async fn serve<S>(stream: S, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufStream::new(stream);
    loop {
        let idle_timeout = shared.settings().lmtp.idle_timeout;
        let request = tokio::select! {
            () = shared.drain.cancelled() => return,
            request = tokio::time::timeout(idle_timeout, read_request(&mut stream)) => request,
        };
        let request = match request {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::debug!("socketmap: {error}");
                return;
            }
        };
        let answered = async {
            let reply = answer(&shared, &request).await;
            let reply = octets::octets(&reply);
            let reply = [format!("{}:", reply.len()).as_bytes(), &reply, b","].concat();
            let sent = async {
                stream.write_all(&reply).await?;
                stream.flush().await
            };
            tokio::time::timeout(idle_timeout, sent).await
        };
        let out_of_time = async {
            shared.drain.cancelled().await;
            tokio::time::sleep(DRAIN_WAIT).await;
        };
        let answered = tokio::select! {
            answered = answered => answered,
            () = out_of_time => return,
        };
        if !matches!(answered, Ok(Ok(()))) {
            return;
        }
    }
}

/// The next netstring; `None` at the end of the connection.
async fn read_request<S>(stream: &mut S) -> io::Result<Option<Vec<u8>>>
where
    S: AsyncBufReadExt + Unpin,
{
    if stream.fill_buf().await?.is_empty() {
        return Ok(None);
    }
    let strange = || io::Error::other("the request is no netstring, or too long a one");
    let mut length = 0_usize;
    loop {
        match stream.read_u8().await? {
            b':' => break,
            digit @ b'0'..=b'9' => length = length * 10 + usize::from(digit - b'0'),
            _ => return Err(strange()),
        }
        if length > REQUEST_BYTES_MAX {
            return Err(strange());
        }
    }
    let mut request = vec![0; length];
    stream.read_exact(&mut request).await?;
    match stream.read_u8().await? {
        b',' => Ok(Some(request)),
        _ => Err(strange()),
    }
}

async fn answer(shared: &Arc<Shared>, request: &[u8]) -> String {
    let request = octets::text(request);
    let Some((map, key)) = request.split_once(' ') else {
        return "PERM the request is not a map, a blank and a key".to_owned();
    };
    let router = shared.engine.snapshot();
    reply(map, answered(|| router.published(map, key)).await)
}

fn reply(map: &str, found: Option<Result<Option<String>, RouteError>>) -> String {
    match found {
        None => format!(
            "PERM no map \"{map}\"; known are {}",
            Router::published_names().join(", ")
        ),
        Some(Ok(None)) => "NOTFOUND ".to_owned(),
        Some(Ok(Some(value))) if value.len() + 3 > REPLY_BYTES_MAX => {
            "TEMP the value is too long for this protocol".to_owned()
        }
        Some(Ok(Some(value))) => format!("OK {value}"),
        Some(Err(error)) => {
            tracing::warn!("socketmap {map}: {error}");
            // The asker's log goes to people who need no more than this.
            format!("TEMP {}", error.status().text)
        }
    }
}
