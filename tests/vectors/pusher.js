// Makes pusher.json: signatures by Pusher's own library, to check ours against. Installing soketi brings the library:
//
//   node tests/vectors/pusher.js .node/soketi/node_modules/pusher > tests/vectors/pusher.json

const path = require("path")
const Pusher = require(path.resolve(process.argv[2]))

const SECONDS = 1700000000
Date.now = () => SECONDS * 1000

const app = { appId: "42", key: "278d425bdf160c739803", secret: "7ad3773142a6692b25b8" }
const encryptionMasterKeyBase64 = Buffer.alloc(32, "master key ").toString("base64")
const pusher = new Pusher({ ...app, host: "localhost", encryptionMasterKeyBase64 })
pusher.post = (request) => request.body
require(require.resolve("tweetnacl", { paths: [path.resolve(process.argv[2])] })).randomBytes = (n) => Buffer.alloc(n, 7)

const events = [
  { name: "App\\Events\\OrderShipped", channels: ["orders", "private-orders.7"], data: '{"id":1}' },
  { name: "é☃", channels: ["presence-room"], data: '{"text":"Zoë 😀 \\u2028"}', socket_id: "1234.1234" },
]
const requests = [
  ...events.map((event) => ({ method: "POST", path: "/apps/42/events", body: JSON.stringify(event) })),
  { method: "POST", path: "/apps/42/batch_events", body: JSON.stringify({ batch: events }) },
  { method: "POST", path: "/apps/42/users/a%2Fb/terminate_connections", body: "{}" },
  { method: "GET", path: "/apps/42/channels" },
  { method: "GET", path: "/apps/42/channels", params: { filter_by_prefix: "presence-", info: "user_count" } },
  { method: "GET", path: "/apps/42/channels/presence-a@b,c;d=e", params: { info: "user_count,subscription_count" } },
  { method: "GET", path: "/apps/42/channels/x", params: { info: "a b&c=d+é%" } },
]
const channels = [
  ["private-orders.7"],
  ["private-encrypted-orders.7"],
  ["presence-room", { user_id: "7", user_info: { name: "Zoë ☃" } }],
]
const encrypted = [{ text: "Zoë ☃" }, [1, null], "text"]
const webhooks = ['{"time_ms":1700000000123,"events":[{"name":"channel_occupied","channel":"é"}]}']

process.stdout.write(
  JSON.stringify(
    {
      made_by: `pusher ${require(path.resolve(process.argv[2], "package.json")).version}`,
      ...app,
      timestamp: SECONDS,
      requests: requests.map((request) => ({ ...request, query: pusher.createSignedQueryString(request) })),
      channels: channels.map(([channel, data]) => ({
        socket_id: "1234.1234",
        channel,
        ...pusher.authorizeChannel("1234.1234", channel, data),
      })),
      encryption_master_key: encryptionMasterKeyBase64,
      encrypted: encrypted.map((data) => ({ clear: data, ...pusher.trigger("private-encrypted-orders.7", "e", data) })),
      webhooks: webhooks.map((body) => ({ body, signature: new Pusher.Token(app.key, app.secret).sign(body) })),
    },
    null,
    2,
  ) + "\n",
)
