// An event as text to copy: JSON, shell commands, Python.

import { asJson, format, parse, parseOrNull } from "./json.js";

const isClientEvent = (event) => event.startsWith("client-");

/** Quotes a text for a POSIX shell. A text with control characters becomes $'…', which bash and zsh know. */
function quoted(text) {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text;
  if (!/(?! )[\p{C}\p{Z}]/u.test(text)) return `'${text.replaceAll("'", "'\\''")}'`;
  const escaped = text.replace(/[\\']/g, "\\$&").replace(/(?! )[\p{C}\p{Z}]/gu, (character) => {
    const code = character.codePointAt(0).toString(16);
    return code.length > 4 ? `\\U${code.padStart(8, "0")}` : `\\u${code.padStart(4, "0")}`;
  });
  return `$'${escaped}'`;
}

/** A Python literal. */
function python(text) {
  const escaped = JSON.stringify(text).replace(/(?! )[\p{C}\p{Z}]/gu, (character) => {
    const code = character.codePointAt(0).toString(16);
    return code.length > 4 ? `\\U${code.padStart(8, "0")}` : `\\u${code.padStart(4, "0")}`;
  });
  return escaped;
}

export function json({ channel, event, user_id, data }) {
  const lines = [`"channel": ${JSON.stringify(channel)}`, `"event": ${JSON.stringify(event)}`];
  if (user_id != null) lines.push(`"user_id": ${JSON.stringify(user_id)}`);
  lines.push(`"data": ${asJson(data)}`);
  return format(parse(`{${lines.join(",")}}`));
}

export function command({ channel, event, data }) {
  if (isClientEvent(event)) return `reverb trigger ${[channel, event, asJson(data)].map(quoted).join(" ")}`;
  const text = parseOrNull(data) === null ? " --text" : "";
  return `reverb publish${text} ${[channel, event, data].map(quoted).join(" ")}`;
}

/** A request to the HTTP API. The copied code signs it, because the page does not know the secret. */
export function curl({ channel, event, data }, server) {
  const url = server.replace(/^ws/, "http").replace(/\/$/, "");
  const body = JSON.stringify({ name: event, channels: [channel], data });
  return `# In bash, with REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET set.
body=${quoted(body)}
md5=$(printf %s "$body" | openssl md5 -r | cut -d' ' -f1)
query="auth_key=$REVERB_APP_KEY&auth_timestamp=$(date +%s)&auth_version=1.0&body_md5=$md5"
signature=$(printf 'POST\\n%s\\n%s' "/apps/$REVERB_APP_ID/events" "$query" |
  openssl dgst -sha256 -hmac "$REVERB_APP_SECRET" -r | cut -d' ' -f1)
curl --json "$body" "${url}/apps/$REVERB_APP_ID/events?$query&auth_signature=$signature"`;
}

export function handler({ channel, event }) {
  const words = event.replace(/^.*\\/, "").replace(/([a-z0-9])([A-Z])/g, "$1_$2").toLowerCase();
  const name = `on_${words.replace(/[^a-z0-9]+/g, "_").replace(/^_+|_+$/g, "") || "event"}`;
  return `import asyncio

from reverb import ReverbClient


async def ${name}(event, data, channel):
    print(f"{channel}: {event} -> {data}")


async def main():
    async with ReverbClient() as client:
        channel = await client.subscribe(${python(channel)})
        channel.bind(${python(event)}, ${name})
        await client.listen()


asyncio.run(main())`;
}

/** Copies a text. Without TLS, browsers give pages of other machines no clipboard. */
export async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
