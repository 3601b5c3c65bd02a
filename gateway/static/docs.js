// The page of the API, made from the documents that the gateway serves: what they say is what the code does.

import { channels, messages } from "./docs_socket.js";
import { code, link, table, words } from "./docs_parts.js";
import { routes, setUp } from "./docs_routes.js";
import { $, make } from "./text.js";

async function read(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  return response.json();
}

function errorRow(error) {
  const row = make("tr");
  row.id = `error-${error.code}`;
  const name = make("td");
  name.append(make("code", "", error.code));
  row.append(
    make("td", "status", String(error.status)), name,
    words("td", "", error.meaning), words("td", "", error.remedy),
  );
  return row;
}

function contents(openapi) {
  const list = (entries) => {
    const items = make("ul");
    for (const [href, text] of entries) {
      const item = make("li");
      item.append(link(href, text));
      items.append(item);
    }
    return items;
  };
  const headed = (href, text, entries) => {
    const part = make("div");
    part.append(link(href, text), list(entries));
    return part;
  };
  const sections = openapi.tags.map(({ name }) => headed(
    `#section-${name}`, name,
    Object.values(openapi.paths).flatMap(Object.values)
      .filter((operation) => operation.tags.includes(name))
      .map((operation) => [`#${operation.operationId}`, operation.summary]),
  ));
  const around = [["#start", "First steps"], ["#websocket", "WebSocket"], ["#errors", "Errors"]];
  const [first, ...last] = around.map(([href, text]) => headed(href, text, []));
  return [first, ...sections, ...last];
}

function identity(openapi) {
  const rows = Object.values(openapi.components.securitySchemes).map((scheme) => {
    const header = scheme.type === "http" ? "Authorization: Bearer TOKEN" : scheme.name;
    return [make("code", "", header), scheme.description ?? ""];
  });
  return table(["Header", ""], rows);
}

function firstSteps(openapi) {
  const local = openapi.paths["/api/v1/test/join"] !== undefined;
  const steps = make("div", "steps");
  if (local) {
    steps.append(
      make("p", "", "Here anybody gets a user with test money. Keep the token, then place an order:"),
      code(`TOKEN=$(curl -s -X POST ${location.origin}/api/v1/test/join | sed 's/.*"token":"\\([^"]*\\).*/\\1/')`),
      code(setUp(openapi, "/api/v1/orders", "post")),
    );
  }
  return steps;
}

async function start() {
  const [openapi, asyncapi] = await Promise.all([read("/api/v1/openapi.json"), read("/api/v1/asyncapi.json")]);
  $("about").replaceWith(words("p", "lead", openapi.info.description));
  $("first-steps").append(firstSteps(openapi));
  $("identity").append(identity(openapi));
  $("routes").append(...routes(openapi));
  $("socket-about").replaceWith(words("p", "lead", asyncapi.info.description));
  $("channels").append(channels(asyncapi));
  $("requests").append(...messages(asyncapi, "ask"));
  $("replies").append(...messages(asyncapi, "tell"));
  $("error-rows").append(...openapi["x-errors"].map(errorRow));
  $("contents").append(...contents(openapi));
  document.documentElement.dataset.ready = "yes";
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

start().catch((error) => { $("about").textContent = `The documents cannot be read: ${error.message}`; });
