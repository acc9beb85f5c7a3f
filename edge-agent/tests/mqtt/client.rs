//! A client that does what a test says, and acknowledges what it receives unless told not to.

use std::{collections::VecDeque, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    agent::DEADLINE,
    wire::{self, Connect, DISCONNECT, Message, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Props, Version},
};

/// What CONNACK said.
#[derive(Debug)]
pub struct Welcome {
    pub present: bool,
    pub code: u8,
    pub props: Props,
}

pub struct Client {
    pub stream: TcpStream,
    pub version: Version,
    inbox: bytes::BytesMut,
    /// Messages that came while something else was waited for.
    pub messages: VecDeque<Message>,
    next_pkid: u16,
}

impl Client {
    /// A connection on which nothing was said yet.
    pub async fn open(address: SocketAddr, version: Version) -> Self {
        let stream = timeout(DEADLINE, TcpStream::connect(address))
            .await
            .expect("a connection in time")
            .expect("a connection");
        stream.set_nodelay(true).expect("a live socket");
        Self::over(stream, version)
    }

    /// On a connection that was made elsewhere.
    pub fn over(stream: TcpStream, version: Version) -> Self {
        Self {
            stream,
            version,
            inbox: bytes::BytesMut::new(),
            messages: VecDeque::new(),
            next_pkid: 0,
        }
    }

    pub async fn try_connect(address: SocketAddr, connect: &Connect) -> (Self, Option<Welcome>) {
        let mut client = Self::open(address, connect.version).await;
        client.send(connect.write()).await;
        let welcome = match client.recv().await {
            Some(Packet::ConnAck { present, code, props }) => Some(Welcome { present, code, props }),
            None => None,
            other => panic!("{other:?} instead of CONNACK"),
        };
        (client, welcome)
    }

    pub async fn connect_with(address: SocketAddr, connect: &Connect) -> (Self, Welcome) {
        let (client, welcome) = Self::try_connect(address, connect).await;
        let welcome = welcome.expect("an answer to CONNECT");
        assert_eq!(welcome.code, 0, "{connect:?} is let in");
        (client, welcome)
    }

    /// A clean session.
    pub async fn connect(address: SocketAddr, version: Version, id: &str) -> Self {
        Self::connect_with(address, &Connect::new(version, id)).await.0
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(DEADLINE, self.stream.write_all(bytes.as_ref()))
            .await
            .expect("the broker reads")
            .expect("a live connection");
    }

    /// False when the connection is lost.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = timeout(DEADLINE, self.stream.write_all(bytes.as_ref())).await;
        sent.expect("the broker reads").is_ok()
    }

    /// The next packet; `None` when the broker has closed the connection.
    pub async fn recv(&mut self) -> Option<Packet> {
        timeout(DEADLINE, self.receive()).await.expect("a packet in time")
    }

    async fn receive(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = wire::read(self.version, &mut self.inbox) {
                return Some(packet);
            }
            match self.stream.read_buf(&mut self.inbox).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next packet that is not a message; messages are kept, and not acknowledged yet.
    pub async fn answer(&mut self) -> Packet {
        loop {
            match self.recv().await.expect("the connection lives") {
                Packet::Publish(message) => self.messages.push_back(message),
                other => return other,
            }
        }
    }

    /// The next answer that is not to a ping.
    pub async fn answer_but_pong(&mut self) -> Packet {
        loop {
            match self.answer().await {
                Packet::PingResp => {}
                other => return other,
            }
        }
    }

    /// The broker closes the connection, saying nothing but perhaps a DISCONNECT, whose reason is answered.
    pub async fn closed(&mut self) -> Option<u8> {
        let mut reason = None;
        loop {
            match self.recv().await {
                None => return reason,
                Some(Packet::Disconnect(code)) if reason.is_none() => reason = Some(code),
                Some(Packet::Publish(message)) => self.messages.push_back(message),
                Some(Packet::Ack(..)) => {}
                Some(other) => panic!("{other:?} instead of an end"),
            }
        }
    }

    pub fn pkid(&mut self) -> u16 {
        self.next_pkid = self.next_pkid.checked_add(1).unwrap_or(1);
        self.next_pkid
    }

    /// Subscribes and answers the reason code.
    pub async fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(&Props::default(), &[(filter, options)]).await[0]
    }

    pub async fn subscribe_with(&mut self, props: &Props, filters: &[(&str, u8)]) -> Vec<u8> {
        let pkid = self.pkid();
        self.send(wire::subscribe(self.version, pkid, props, filters))
            .await;
        match self.answer().await {
            Packet::SubAck(p, codes) if p == pkid && codes.len() == filters.len() => codes,
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    pub async fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let pkid = self.pkid();
        self.send(wire::unsubscribe(self.version, pkid, filters)).await;
        match self.answer().await {
            Packet::UnsubAck(p, codes) if p == pkid => codes,
            other => panic!("{other:?} instead of UNSUBACK"),
        }
    }

    /// Publishes and goes through the whole exchange. Answers the reason code.
    pub async fn publish(&mut self, message: Message) -> u8 {
        let pkid = if message.qos > 0 { self.pkid() } else { 0 };
        let message = message.pkid(pkid);
        self.send(message.write(self.version)).await;
        match message.qos {
            0 => 0,
            1 => self.acknowledged(PUBACK, pkid).await,
            _ => {
                let reason = self.acknowledged(PUBREC, pkid).await;
                if reason < 0x80 {
                    self.send(wire::ack(PUBREL, pkid)).await;
                    assert_eq!(self.acknowledged(PUBCOMP, pkid).await, 0);
                }
                reason
            }
        }
    }

    /// Waits for an acknowledgement, answers its reason.
    pub async fn acknowledged(&mut self, byte1: u8, pkid: u16) -> u8 {
        match self.answer().await {
            Packet::Ack(b, p, reason) if b == byte1 && p == pkid => reason,
            other => panic!("{other:?} instead of acknowledgement {byte1:#x} of {pkid}"),
        }
    }

    /// The next message, acknowledged.
    pub async fn message(&mut self) -> Message {
        let message = match self.messages.pop_front() {
            Some(message) => message,
            None => match self.recv().await {
                Some(Packet::Publish(message)) => message,
                other => panic!("{other:?} instead of a message"),
            },
        };
        self.take(&message).await;
        message
    }

    /// Acknowledges a message.
    pub async fn take(&mut self, message: &Message) {
        match message.qos {
            0 => {}
            1 => self.send(wire::ack(PUBACK, message.pkid)).await,
            _ => {
                self.send(wire::ack(PUBREC, message.pkid)).await;
                self.acknowledged(PUBREL, message.pkid).await;
                self.send(wire::ack(PUBCOMP, message.pkid)).await;
            }
        }
    }

    pub async fn message_list(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.push(self.message().await);
        }
        messages
    }

    /// Everything that waits for this client. Its own message to itself comes behind it all.
    pub async fn rest(&mut self) -> Vec<Message> {
        let end = format!("end/{:016x}", rand::random::<u64>());
        assert_eq!(self.subscribe(&end, 0).await, 0);
        self.send(Message::new(&end, "", 0).write(self.version)).await;
        let mut messages = Vec::new();
        loop {
            let message = self.message().await;
            if message.topic == end {
                self.unsubscribe(&[&end]).await;
                return messages;
            }
            messages.push(message);
        }
    }

    /// Proves that the broker still serves this connection.
    pub async fn ping(&mut self) {
        self.send(wire::PINGREQ).await;
        assert_eq!(self.answer().await, Packet::PingResp);
    }

    /// Says goodbye and waits for the end.
    pub async fn disconnect(mut self) {
        self.send(DISCONNECT).await;
        while self.recv().await.is_some() {}
    }
}

/// The texts of messages, in order.
pub fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(Message::text).collect()
}

/// The texts of messages, sorted.
pub fn sorted(messages: &[Message]) -> Vec<&str> {
    let mut texts = texts(messages);
    texts.sort_unstable();
    texts
}
