// The routes of the HTTP API: what each takes and answers, and a curl line to copy.

import { code, folded, link, table } from "./docs_parts.js";
import { example, fields, inline, pretty, typeText } from "./docs_schema.js";
import { make } from "./text.js";

export function routes(openapi) {
  return openapi.tags.map(({ name }) => {
    const section = make("section");
    section.id = `section-${name}`;
    section.append(make("h2", "", name));
    for (const [path, operations] of Object.entries(openapi.paths)) {
      for (const [method, operation] of Object.entries(operations)) {
        if (operation.tags.includes(name)) section.append(route(openapi, path, method, operation));
      }
    }
    return section;
  });
}

function route(openapi, path, method, operation) {
  const article = make("article", "route");
  article.id = operation.operationId;
  const title = make("h3", "title");
  title.append(make("span", `method ${method}`, method.toUpperCase()), make("code", "path", path));
  if (operation["x-permission"]) title.append(make("span", "pill", operation["x-permission"]));
  const left = make("div", "said");
  left.append(title, make("p", "", operation.summary + "."));
  if (operation.description) left.append(make("p", "soft", operation.description));
  if (operation.parameters) left.append(parameters(openapi, operation.parameters));
  const body = operation.requestBody?.content["application/json"].schema;
  const bodyFields = body && fields(openapi, body);
  if (bodyFields) left.append(folded(`Body: ${typeText(openapi, body)}`, bodyFields));
  left.append(...answers(openapi, operation), refusals(openapi, operation));
  const right = make("div", "tried");
  right.append(code(setUp(openapi, path, method)));
  const shown = firstAnswer(operation);
  if (shown) right.append(folded("An answer", make("pre", "answer", pretty(example(openapi, shown)))));
  article.append(left, right);
  return article;
}

function parameters(openapi, list) {
  return table(["Parameter", "Type", ""], list.map((parameter) => {
    const label = make("span");
    label.append(make("code", "", parameter.name));
    if (parameter.required) label.append(make("span", "needed", "required"));
    return [label, make("span", "type", bounds(openapi, parameter.schema)), parameter.description];
  }));
}

function bounds(openapi, schema) {
  const initial = schema.default !== undefined && schema.default !== "" ? `, else ${schema.default}` : "";
  if (schema.maximum !== undefined) return `${schema.minimum} to ${schema.maximum}${initial}`;
  return (schema.enum ? typeText(openapi, schema) : "text") + initial;
}

function firstAnswer(operation) {
  return Object.values(operation.responses).find((answer) => answer.content)?.content["application/json"]?.schema;
}

function answers(openapi, operation) {
  const made = new Map();
  for (const [status, answer] of Object.entries(operation.responses)) {
    if (!answer.content) continue;
    const [media, { schema }] = Object.entries(answer.content)[0];
    const text = media === "application/json" ? typeText(openapi, schema) : media;
    made.set(text, { statuses: [...(made.get(text)?.statuses ?? []), status], schema });
  }
  return [...made].map(([text, { statuses, schema }]) => {
    const found = fields(openapi, schema);
    const label = `Answer ${statuses.join(", ")}: ${text}`;
    return found ? folded(label, found) : make("p", "plain", label);
  });
}

function refusals(openapi, operation) {
  const line = make("p", "refusals");
  for (const answer of Object.values(operation.responses)) {
    if (!answer.$ref) continue;
    for (const name of openapi.components.responses[answer.$ref.split("/").at(-1)].description.split(", ")) {
      line.append(link(`#error-${name}`, name), " ");
    }
  }
  return line;
}

// A curl line that does it, with the examples of the parameters that are needed.
export function setUp(openapi, path, method) {
  const operation = openapi.paths[path][method];
  const parameters = operation.parameters ?? [];
  const value = (parameter) => parameter.example ?? String(parameter.schema.default ?? "");
  let target = path;
  for (const parameter of parameters.filter((one) => one.in === "path")) {
    target = target.replace(`{${parameter.name}}`, value(parameter));
  }
  const query = parameters.filter((one) => one.in === "query" && one.required)
    .map((parameter) => `${parameter.name}=${value(parameter)}`).join("&");
  const words = ["curl -s"];
  if (method !== "get") words.push(`-X ${method.toUpperCase()}`);
  words.push(`"${location.origin}${target}${query ? `?${query}` : ""}"`);
  if (operation.security.length) words.push('-H "Authorization: Bearer $TOKEN"');
  const body = operation.requestBody?.content["application/json"].example;
  const lines = [words.join(" ")];
  if (body) lines.push(`  -d '${inline(body)}'`);
  return lines.join(" \\\n");
}
