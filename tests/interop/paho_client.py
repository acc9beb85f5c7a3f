#!/usr/bin/env python3
"""Eclipse Paho's client for Python against a running edge-agent.

usage: paho_client.py all|begin|end PORT [TLS_PORT WEBSOCKET_PORT CA_FILE]

`all` tries what people use of MQTT 3.1.1 and 5; `begin` leaves a session behind with messages waiting, `end` expects both after the
agent was killed in between. Ends with 0, or with what was not as it should be. It never waits without a limit.
"""

import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

# A busy machine needs seconds for what takes milliseconds.
WITHIN = 30
# How long nothing more may come.
SILENCE = 0.5
VERSIONS = {"3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}


class Client:
    """A client whose calls wait for their answers."""

    def __init__(self, port, version, name, keep=False, will=None, transport="tcp", ca=None):
        self.version = version
        five = version == "5"
        arguments = {} if five else {"clean_session": not keep}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, name, protocol=VERSIONS[version], transport=transport, **arguments
        )
        self.messages = queue.Queue()
        self.connected = queue.Queue()
        self.subscribed = queue.Queue()
        self.published = {}
        self.acknowledged = threading.Condition()
        self.client.on_message = lambda client, data, message: self.messages.put(message)
        self.client.on_connect = lambda client, data, flags, reason, properties: self.connected.put((flags, reason))
        self.client.on_subscribe = lambda client, data, mid, reasons, properties: self.subscribed.put(reasons)
        if will:
            self.client.will_set(*will)
        if ca:
            self.client.tls_set(ca_certs=ca)
        more = {}
        if five:
            more["clean_start"] = not keep
            if keep:
                more["properties"] = Properties(PacketTypes.CONNECT)
                more["properties"].SessionExpiryInterval = 1000
        self.client.connect("127.0.0.1", port, keepalive=30, **more)
        self.client.loop_start()
        flags, reason = self.connected.get(timeout=WITHIN)
        expect(not reason.is_failure, f"{name}: CONNACK says {reason}")
        self.session_present = flags.session_present

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)
        reasons = self.subscribed.get(timeout=WITHIN)
        expect(reasons[0].value == qos, f"SUBACK for {topic} says {reasons}")

    def publish(self, topic, text, qos=0, retain=False):
        """Waits for PUBACK or PUBCOMP."""
        info = self.client.publish(topic, text, qos, retain)
        info.wait_for_publish(WITHIN)
        expect(info.is_published(), f"{text} at QoS {qos} was not acknowledged")

    def texts(self, count):
        """As many messages as wanted, and no more."""
        got = [self.messages.get(timeout=WITHIN) for _ in range(count)]
        try:
            more = self.messages.get(timeout=SILENCE)
            raise SystemExit(f"one more message than expected: {more.topic} {more.payload}")
        except queue.Empty:
            pass
        return sorted(message.payload.decode() for message in got), got

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        """Without DISCONNECT: the last will is due."""
        self.client.loop_stop()
        self.client.socket().close()


def expect(condition, message):
    if not condition:
        raise SystemExit(message)


def equal(got, want, what):
    expect(got == want, f"{what}: {got!r} instead of {want!r}")


def three(client, topic, what):
    client.subscribe(topic, 2)
    for qos in range(3):
        client.publish(topic, f"qos {qos}", qos)
    texts, got = client.texts(3)
    equal(texts, ["qos 0", "qos 1", "qos 2"], what)
    equal(sorted(message.qos for message in got), [0, 1, 2], f"{what}: QoS")


def everything(port, tls_port, websocket_port, ca_file):
    for version in VERSIONS:
        base = f"paho/{version}"
        client = Client(port, version, f"paho-{version}")
        three(client, f"{base}/basic", f"{version}: publish and subscribe")
        # A device's topic: the acknowledgement means that it is on disk.
        client.publish("paho-device/events/rpc", "{}", 1)
        client.publish("paho-device/events/rpc", "[]", 2)

        client.publish(f"{base}/kept", "kept", 1, retain=True)
        late = Client(port, version, f"paho-late-{version}")
        late.subscribe(f"{base}/kept", 1)
        texts, got = late.texts(1)
        equal((texts, got[0].retain), (["kept"], True), f"{version}: retained")
        client.publish(f"{base}/kept", "", 1, retain=True)
        late.texts(1)
        late.leave()

        client.subscribe(f"{base}/gone", 1)
        dying = Client(port, version, f"paho-dying-{version}", will=(f"{base}/gone", "bye", 1, False))
        dying.vanish()
        equal(client.texts(1)[0], ["bye"], f"{version}: will")

        members = [Client(port, version, f"paho-member-{version}-{n}") for n in range(2)]
        for member in members:
            member.subscribe(f"$share/group/{base}/shared", 1)
        for n in range(10):
            client.publish(f"{base}/shared", str(n), 1)
        got = []
        for _ in range(10):
            for member in members:
                try:
                    got.append(member.messages.get(timeout=WITHIN if len(got) == 0 else 1).payload)
                except queue.Empty:
                    pass
        equal(sorted(got), [str(n).encode() for n in range(10)], f"{version}: shared, each once")
        for member in members:
            member.leave()
        client.leave()

        secret = Client(tls_port, version, f"paho-tls-{version}", ca=ca_file)
        three(secret, f"{base}/tls", f"{version}: TLS")
        secret.leave()
        web = Client(websocket_port, version, f"paho-web-{version}", transport="websockets")
        three(web, f"{base}/web", f"{version}: WebSocket")
        web.leave()


def begin(port):
    for version in VERSIONS:
        kept = Client(port, version, f"paho-kept-{version}", keep=True)
        equal(kept.session_present, False, f"{version}: a session nobody made")
        kept.subscribe(f"paho/{version}/wait", 2)
        kept.leave()
        other = Client(port, version, f"paho-other-{version}")
        for qos in (1, 2):
            other.publish(f"paho/{version}/wait", f"qos {qos}", qos)
        other.leave()


def end(port):
    for version in VERSIONS:
        kept = Client(port, version, f"paho-kept-{version}", keep=True)
        equal(kept.session_present, True, f"{version}: the session after the kill")
        equal(kept.texts(2)[0], ["qos 1", "qos 2"], f"{version}: what waited over the kill")
        kept.leave()


def main():
    what, port, *more = sys.argv[1:]
    if what == "all":
        everything(int(port), int(more[0]), int(more[1]), more[2])
    else:
        {"begin": begin, "end": end}[what](int(port))


main()
