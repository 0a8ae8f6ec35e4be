//! A real Prometheus 3 reads series from us by remote read and answers queries over them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use trine_model::TenantId;
use trine_promql::{
    Engine,
    api::{Api, FRAMES, ReadFrames, Request, decode_read_request},
};

use crate::{bodies, compare, memory::Memory, queries, server};

/// What readers have asked for.
#[derive(Default)]
struct Asked {
    chunks: AtomicUsize,
    samples: AtomicUsize,
}

/// Answers one request. The end of the connection is the end of the body.
fn answer(mut stream: TcpStream, tables: &Memory, asked: &Asked) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let read = decode_read_request(&body).unwrap();
    let request = Request {
        params: &[],
        tenant: TenantId::default(),
        tables,
        now_ms: queries::START,
        deadline: Instant::now() + Duration::from_secs(60),
        stats: Arc::default(),
    };
    let mut head = |status: u16, kind: &str, encoding: &str| {
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{encoding}Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes())
    };
    let api = Api::default();
    if !read.chunks {
        asked.samples.fetch_add(1, Relaxed);
        let reply = api.remote_read(&request, &read.queries);
        head(reply.status, reply.content_type, "Content-Encoding: snappy\r\n")?;
        return stream.write_all(&reply.body);
    }
    asked.chunks.fetch_add(1, Relaxed);
    head(200, FRAMES, "")?;
    let mut frames = ReadFrames::new(read.queries);
    while let Some(frame) = frames.next(&api, &request) {
        stream.write_all(&frame.unwrap())?;
    }
    Ok(())
}

#[test]
fn prometheus_reads_our_chunks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/read", listener.local_addr().unwrap());
    let config = format!("remote_read:\n- url: {url}\n  read_recent: true\n");
    let Some(server) = server::start("reader", &config) else {
        eprintln!("no Prometheus 3 found, nothing was read");
        return;
    };
    let source = queries::source();
    let (tables, asked) = (Arc::new(bodies::tables(&source)), Arc::new(Asked::default()));
    let (served, counted) = (tables.clone(), asked.clone());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (tables, asked) = (served.clone(), counted.clone());
            thread::spawn(move || answer(stream, &tables, &asked));
        }
    });
    let engine = Engine::default();
    let at = format!("time={}.{:03}", queries::END / 1000, queries::END % 1000);
    let mut wrong = Vec::new();
    for query in queries::all() {
        let theirs = server.query("query", &query, &at);
        if let Err(error) = compare(&theirs, engine.instant(&source, &query, queries::END)) {
            wrong.push(format!("{query}\n    {error}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked.chunks.load(Relaxed) > 100);
    assert_eq!(asked.samples.load(Relaxed), 0);
}
