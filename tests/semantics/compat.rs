//! Adapters for other libraries: streams, timers and an executor.

#[cfg(feature = "hyper")]
use std::time::Duration;

use ringloop::compat::Buffered;
use ringloop::net::UnixStream;
use ringloop::task;

use crate::streams::run;
use crate::trace::ms;

#[cfg(feature = "futures-io")]
#[test]
fn an_error_of_sending_is_told_by_the_next_write_flush_or_close() {
    use futures_util::{AsyncReadExt, AsyncWriteExt};
    run(async {
        for ask in 0..3 {
            let (one, other) = UnixStream::pair().unwrap();
            let mut one = Buffered::from(one);
            crate::streams::hang_up(other);
            assert_eq!(one.write(b"lost").await.unwrap(), 4);
            task::sleep(ms(2)).await.unwrap();
            let told = match ask {
                0 => one.write(b"x").await.map(drop),
                1 => one.flush().await,
                _ => one.close().await,
            };
            assert_eq!(told.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
            assert_eq!(one.read(&mut [0; 10]).await.unwrap(), 0);
            assert!(one.write_all(b"x").await.is_ok(), "the error was reported once");
        }
    });
}

#[cfg(feature = "futures-io")]
#[test]
fn what_is_written_in_parts_is_sent_without_a_flush() {
    use futures_util::{AsyncReadExt, AsyncWriteExt};
    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Buffered::from(one), Buffered::from(other));
        for part in [&b"a"[..], b"b", b"c"] {
            one.write_all(part).await.unwrap();
        }
        let mut got = [0; 3];
        other.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"abc");
    });
}

#[cfg(feature = "futures-io")]
#[test]
fn lines_are_read_and_a_close_sends_what_is_left() {
    use futures_util::{AsyncBufReadExt, AsyncWriteExt};
    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) =
            (Buffered::from(one).with_capacity(7), Buffered::from(other).with_capacity(5));
        let writing = task::spawn(async move {
            for number in 0..1000 {
                one.write_all(format!("line {number}\n").as_bytes()).await.unwrap();
            }
            for _ in 0..2 {
                one.close().await.unwrap();
            }
            one
        })
        .unwrap();
        for number in 0..1000 {
            let mut line = String::new();
            other.read_line(&mut line).await.unwrap();
            assert_eq!(line, format!("line {number}\n"));
        }
        assert_eq!(other.read_line(&mut String::new()).await.unwrap(), 0);
        assert!(writing.await.unwrap().get_ref().peer_addr().is_ok());
    });
}

#[cfg(feature = "futures-io")]
#[test]
fn a_stream_that_is_made_a_buffered_one_keeps_what_it_has_left() {
    use futures_util::AsyncReadExt;
    run(async {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        one.write_all("kept").await.0.unwrap();
        drop(crate::streams::poll_once(std::pin::pin!(other.read(Vec::with_capacity(10)))).await);
        let mut text = [0; 4];
        Buffered::from(other).read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"kept");
    });
}

#[cfg(feature = "hyper")]
#[test]
fn s36_timers_of_hyper_are_those_of_the_loop() {
    use hyper::rt::Timer as _;
    use ringloop::compat::Timer;

    let lp = crate::trace::virtual_loop();
    let timers = lp
        .run_until_complete(async {
            let timer = Timer::new().unwrap();
            let start = timer.now();
            let late = task::spawn(timer.sleep(Duration::from_secs(3600))).unwrap();
            timer.sleep_until(start + ms(5)).await;
            assert_eq!(timer.now() - start, ms(5));
            let mut sleep = timer.sleep(ms(1));
            timer.reset(&mut sleep, start + ms(100));
            sleep.await;
            assert_eq!(timer.now() - start, ms(100));
            late.await.unwrap();
            assert_eq!(timer.now() - start, Duration::from_secs(3600));
            assert!(
                crate::streams::poll_once(timer.sleep(Duration::MAX).as_mut()).await.is_none(),
                "a sleep without end is complete"
            );
            timer.sleep_until(start).await;
            assert_eq!(timer.now() - start, Duration::from_secs(3600));
            // A sleep that has begun is dropped on another thread.
            let mut begun = timer.sleep(Duration::from_secs(3600));
            assert!(crate::streams::poll_once(begun.as_mut()).await.is_none());
            std::thread::spawn(move || drop(begun)).join().unwrap();
            timer
        })
        .unwrap();
    assert!(lp.run().is_ok());
    assert!(
        lp.time() < crate::trace::START + Duration::from_secs(7200),
        "a sleep dropped on another thread is cancelled"
    );
    // Without a loop, a sleep is complete at once.
    assert!(
        futures_util::FutureExt::now_or_never(timers.sleep(Duration::from_secs(3600))).is_some()
    );
    assert!(ringloop::compat::Timer::new().is_err());
}

#[cfg(feature = "hyper")]
#[test]
fn a_client_and_a_server_of_hyper_talk() {
    use http_body_util::{BodyExt, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::rt::Executor as _;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use ringloop::compat::Executor;

    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        let service = service_fn(async |request: Request<Incoming>| {
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Response::new(Full::new(body)))
        });
        let server = hyper::server::conn::http1::Builder::new()
            .serve_connection(Buffered::from(other), service);
        Executor.execute(server);
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(Buffered::from(one)).await.unwrap();
        Executor.execute(connection);
        for size in [0, 1, 1000, 1 << 20] {
            let body = Bytes::from(vec![7; size]);
            let response =
                client.send_request(Request::new(Full::new(body.clone()))).await.unwrap();
            assert!(response.into_body().collect().await.unwrap().to_bytes() == body);
        }
    });
}
