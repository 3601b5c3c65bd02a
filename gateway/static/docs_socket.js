// The WebSocket: its channels, what clients say, what they are told.

import { code, folded, table } from "./docs_parts.js";
import { example, fields, inline, pretty, typeText } from "./docs_schema.js";
import { make } from "./text.js";

const isData = (message) => message["x-private"] !== undefined;

export function channels(asyncapi) {
  const all = Object.entries(asyncapi.components.messages).filter(([, message]) => isData(message));
  const kinds = all.filter(([name]) => name.endsWith("_snapshot")).map(([name]) => name.replace("_snapshot", ""));
  const rows = kinds.map((kind) => {
    const { snapshot, update } = Object.fromEntries(
      ["snapshot", "update"].map((type) => [type, asyncapi.components.messages[`${kind}_${type}`]]),
    );
    const name = make("span");
    name.append(make("code", "", snapshot.payload.properties.channel.examples[0]));
    if (snapshot["x-private"]) name.append(make("span", "pill", "yours"));
    const data = (message) => make("span", "type", typeText(asyncapi, message.payload.properties.data));
    return [name, snapshot.summary, data(snapshot), data(update)];
  });
  const box = make("div");
  box.append(table(["Channel", "", "Snapshot", "Update"], rows));
  for (const kind of kinds) {
    const { payload } = asyncapi.components.messages[`${kind}_update`];
    const inside = [make("pre", "answer", pretty(example(asyncapi, payload)))];
    const found = fields(asyncapi, payload.properties.data);
    if (found) inside.push(found);
    box.append(folded(`An update of ${kind}`, ...inside));
  }
  return box;
}

export function messages(asyncapi, operation) {
  const names = asyncapi.operations[operation].messages.map(({ $ref }) => $ref.split("/").at(-1));
  return names.map((name) => asyncapi.components.messages[name]).filter((message) => !isData(message)).map((message) => {
    const article = make("article", "message");
    const title = make("h4");
    title.append(make("code", "", message.name));
    article.append(title, make("p", "", message.summary));
    article.append(code(inline(told(asyncapi, message.payload))));
    return article;
  });
}

// An example with what is needed, and an id.
function told(asyncapi, payload) {
  const value = example(asyncapi, payload);
  const schema = asyncapi.components.schemas[payload.$ref.split("/").at(-1)];
  const needed = new Set([...(schema.required ?? []), "op", "id", "token"]);
  return Object.fromEntries(Object.entries(value).filter(([name]) => needed.has(name)));
}
