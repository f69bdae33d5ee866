// The ordinary life of a browser's client: pusher-js and Laravel Echo, on Node. Says on each line of its output, in
// JSON, what has happened. Arguments: the directory of the packages, the client (pusher or echo), host, port.
const crypto = require("node:crypto");
const { createRequire } = require("node:module");

const [directory, kind, wsHost, wsPort] = process.argv.slice(2);
const load = createRequire(`${directory}/`);
const Pusher = load("pusher-js");

const MASTER_KEY = "master key of the application!!!";

function say(who, what, data = null) {
  console.log(JSON.stringify([who, what, data]));
}

// What an application's /broadcasting/auth does.
function authorizerFor(id) {
  return (channel) => ({
    authorize(socketId, callback) {
      const answer = {};
      let text = `${socketId}:${channel.name}`;
      if (channel.name.startsWith("presence-")) {
        answer.channel_data = JSON.stringify({ user_id: id, user_info: { name: id } });
        text += `:${answer.channel_data}`;
      }
      if (channel.name.startsWith("private-encrypted-")) {
        answer.shared_secret = crypto.createHash("sha256").update(channel.name + MASTER_KEY).digest("base64");
      }
      answer.auth = `app-key:${crypto.createHmac("sha256", "app-secret").update(text).digest("hex")}`;
      callback(null, answer);
    },
  });
}

function connect(id) {
  const pusher = new Pusher("app-key", {
    cluster: "",
    wsHost,
    wsPort: Number(wsPort),
    forceTLS: false,
    enabledTransports: ["ws"],
    authorizer: authorizerFor(id),
  });
  pusher.connection.bind("connected", () => say(id, "connected"));
  pusher.connection.bind("error", (error) => say(id, "error", error));
  return pusher;
}

function withPusher() {
  const alice = connect("alice");
  const bob = connect("bob");
  for (const name of ["news", "private-orders.7", "private-encrypted-secrets"]) {
    const channel = alice.subscribe(name);
    channel.bind("pusher:subscription_succeeded", () => say("alice", "subscribed", name));
    channel.bind("shipped", (data) => say("alice", name, data));
  }
  const room = alice.subscribe("presence-room.1");
  room.bind("pusher:subscription_succeeded", (members) => say("alice", "here", Object.keys(members.members)));
  room.bind("pusher:member_added", (member) => say("alice", "joining", member.id));
  room.bind("pusher:member_removed", (member) => say("alice", "leaving", member.id));
  room.bind("client-typing", (data, metadata) => say("alice", "whisper", [data, metadata.user_id]));
  process.stdin.on("data", (command) => {
    if (String(command).startsWith("join")) {
      const bobs = bob.subscribe("presence-room.1");
      bobs.bind("pusher:subscription_succeeded", () => bobs.trigger("client-typing", { typing: true }));
    } else {
      bob.unsubscribe("presence-room.1");
    }
  });
}

async function withEcho() {
  const { default: Echo } = await import(`${directory}/node_modules/laravel-echo/dist/echo.js`);
  const [alice, bob] = ["alice", "bob"].map((id) => new Echo({ broadcaster: "reverb", key: "app-key", client: connect(id) }));
  for (const [channel, name] of [
    [alice.channel("news"), "news"],
    [alice.private("orders.7"), "private-orders.7"],
    [alice.encryptedPrivate("secrets"), "private-encrypted-secrets"],
  ]) {
    channel.subscribed(() => say("alice", "subscribed", name)).listen(".shipped", (data) => say("alice", name, data));
  }
  const { name } = alice
    .join("room.1")
    .here((members) => say("alice", "here", members.map((member) => member.name)))
    .joining((member) => say("alice", "joining", member.name))
    .leaving((member) => say("alice", "leaving", member.name))
    .listenForWhisper("typing", (data) => say("alice", "whisper", [data, "bob"]));
  process.stdin.on("data", (command) => {
    if (String(command).startsWith("join")) {
      const bobs = bob.join("room.1").here(() => bobs.whisper("typing", { typing: true }));
    } else {
      bob.leave("room.1");
    }
  });
}

(kind === "echo" ? withEcho : withPusher)();
