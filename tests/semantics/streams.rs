//! Streams, listeners and datagrams of tasks: what is given comes back, and what is cancelled loses nothing. S13, S14, S22.

use ringloop::net::{TcpListener, TcpStream};
use ringloop::task;

use crate::trace::real_loop;

#[test]
fn what_is_written_is_read() {
    let lp = real_loop();
    let sent: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
    let copy = sent.clone();
    let received = lp
        .run_until_complete(async move {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let echo = task::spawn(async move {
                let mut stream = listener.accept().await.unwrap();
                loop {
                    let (read, buffer) = stream.read(Vec::with_capacity(10000)).await;
                    if read.unwrap() == 0 {
                        break;
                    }
                    let (written, _) = stream.write_all(buffer).await;
                    written.unwrap();
                }
            })
            .unwrap();
            let client = TcpStream::connect(address).await.unwrap();
            let (mut reader, mut writer) = client.into_split();
            let sender = task::spawn(async move {
                let (written, buffer) = writer.write_all(copy).await;
                assert_eq!((written, buffer.len()), (Ok(()), 3_000_000));
                writer.shutdown().unwrap();
            })
            .unwrap();
            let (read, received) = reader.read_exact(Vec::with_capacity(3_000_000)).await;
            assert_eq!(read, Ok(()));
            let (read, _) = reader.read(Vec::with_capacity(1)).await;
            assert_eq!(read, Ok(0));
            sender.await.unwrap();
            echo.await.unwrap();
            received
        })
        .unwrap();
    assert!(received == sent);
}
