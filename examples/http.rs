//! An HTTP server of tasks, with hyper. It answers `/`, and sends back data posted to `/echo`.
//!
//!     cargo run --release --features hyper --example http [PORT]      on 127.0.0.1; without a port, any that is free
//!
//! SIGINT and SIGTERM end the server, which first finishes current requests, for at most 2 s.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, FutureExt, select};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use ringloop::compat::{Buffered, Timer};
use ringloop::net::{TcpListener, TcpStream};
use ringloop::signal::signal;
use ringloop::{Loop, task};

/// The time that connections have to end.
const GRACE: Duration = Duration::from_secs(2);

async fn answer(
    request: Request<Incoming>,
    requests: Rc<Cell<u64>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    requests.set(requests.get() + 1);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (status, body) = match (request.into_body().collect().await, path.as_str()) {
        (Ok(_), "/") => (StatusCode::OK, Bytes::from_static(b"hello\n")),
        (Ok(posted), "/echo") if method == Method::POST => (StatusCode::OK, posted.to_bytes()),
        (Ok(_), _) => (StatusCode::NOT_FOUND, Bytes::new()),
        (Err(_), _) => (StatusCode::BAD_REQUEST, Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    Ok(response)
}

/// Serves a connection until it ends; after `ending`, until the current request is answered.
async fn serve(
    stream: TcpStream,
    requests: Rc<Cell<u64>>,
    ending: impl Future + Unpin,
) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| answer(request, Rc::clone(&requests)));
    let timer = Timer::new().expect("a task has a loop");
    let connection =
        http1::Builder::new().timer(timer).serve_connection(Buffered::from(stream), service);
    let mut connection = pin!(connection);
    match select(connection.as_mut(), ending).await {
        Either::Left((served, _)) => served,
        Either::Right(_) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn run(port: u16) -> ringloop::Result<()> {
    let (mut interrupts, mut terminations) = (signal(libc::SIGINT)?, signal(libc::SIGTERM)?);
    let mut end = pin!(async {
        select(pin!(interrupts.next()), pin!(terminations.next())).await;
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port).into())?;
    println!("listening on {}", listener.local_addr()?);

    let requests = Rc::new(Cell::new(0));
    // Dropping `ending` makes all connections end. `alive` is dropped with the last connection.
    let (ending, told_to_end) = task::oneshot::<()>()?;
    let (alive, all_have_ended) = task::oneshot::<()>()?;
    let (told_to_end, alive) = (told_to_end.shared(), Rc::new(alive));
    loop {
        match select(pin!(listener.accept()), end.as_mut()).await {
            Either::Right(_) => break,
            Either::Left((Ok(stream), _)) => {
                stream.set_nodelay(true)?;
                let (serving, alive) =
                    (serve(stream, Rc::clone(&requests), told_to_end.clone()), Rc::clone(&alive));
                drop(task::spawn(async move {
                    // Errors of the client end only its connection.
                    let _ = serving.await;
                    drop(alive);
                })?);
            }
            Either::Left((Err(error), _)) => {
                eprintln!("http: accept: {error}");
                task::sleep(Duration::from_millis(100)).await?;
            }
        }
    }
    drop((listener, ending, alive));
    let in_time = task::timeout(GRACE, all_have_ended).await.is_ok();
    println!("{} requests{}", requests.get(), if in_time { "" } else { ", connections cut off" });
    Ok(())
}

fn main() -> ringloop::Result<()> {
    let port = std::env::args().nth(1).map_or(0, |port| port.parse().expect("a port is a number"));
    Loop::new()?.run_until_complete(run(port))?
}
