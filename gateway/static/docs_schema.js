// JSON Schemas as words, as tables of fields, and as examples.

import { table } from "./docs_parts.js";
import { make } from "./text.js";

export function resolve(document, schema) {
  const found = schema.$ref ? document.components.schemas[schema.$ref.split("/").at(-1)] : schema;
  return found.allOf ? { ...resolve(document, found.allOf[0]), ...found } : found;
}

export function typeText(document, schema) {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.filter((value) => value !== "").join(" | ");
  if (schema.anyOf) return [...new Set(schema.anyOf.map((one) => typeText(document, one)))].join(" | ");
  if (schema.$ref) {
    const found = resolve(document, schema);
    return found.type === "object" ? found.title : typeText(document, found);
  }
  if (schema.type === "array") {
    const inner = typeText(document, schema.items);
    return schema.minItems === 2 && schema.maxItems === 2 ? `[${inner}, ${inner}]` : `list of ${inner}`;
  }
  if (schema.format === "date-time") return "time";
  if (schema.type === "string" && schema.pattern?.startsWith("^[0-9]+")) return "decimal";
  return schema.type ?? "anything";
}

// What a schema's object has, by field; of a list, what its items have.
export function fields(document, schema) {
  const found = resolve(document, schema);
  if (found.type === "array") return fields(document, found.items);
  const entries = Object.entries(found.properties ?? {});
  if (!entries.length) return null;
  const needed = new Set(found.required ?? []);
  const inner = entries.map(([name, field]) => {
    const label = make("span");
    label.append(make("code", "", name));
    if (found.additionalProperties === false && needed.has(name)) label.append(make("span", "needed", "required"));
    return [label, make("span", "type", typeText(document, field)), field.description ?? ""];
  });
  const described = inner.some(([, , about]) => about);
  return table(described ? ["Field", "Type", ""] : ["Field", "Type"], described ? inner : inner.map((row) => row.slice(0, 2)));
}

export function example(document, schema, depth = 0) {
  if (schema.const !== undefined) return schema.const;
  if (schema.examples) return schema.examples[0];
  if (schema.enum) return schema.enum.find((value) => value !== "");
  if (schema.anyOf) return example(document, schema.anyOf[0], depth);
  const found = resolve(document, schema);
  if (found !== schema) return example(document, found, depth + 1);
  if (schema.type === "array") {
    const count = schema.minItems === 2 ? 2 : 1;
    return Array.from({ length: depth > 8 ? 0 : count }, () => example(document, schema.items ?? {}, depth + 1));
  }
  if (schema.type === "object") {
    const entries = Object.entries(schema.properties ?? {});
    return Object.fromEntries(entries.map(([name, field]) => [name, example(document, field, depth + 1)]));
  }
  return { integer: 1, number: 1, boolean: true, string: "text", null: null }[schema.type] ?? null;
}

// JSON as people write it: what is short stays on one line.
export function pretty(value, indent = "") {
  const flat = inline(value);
  if (typeof value !== "object" || value === null || flat.length + indent.length < 60) return flat;
  const deeper = `${indent}  `;
  const inner = Array.isArray(value)
    ? value.map((one) => deeper + pretty(one, deeper))
    : Object.entries(value).map(([name, one]) => `${deeper}${JSON.stringify(name)}: ${pretty(one, deeper)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return `${open}\n${inner.join(",\n")}\n${indent}${close}`;
}

export function inline(value) {
  if (Array.isArray(value)) return `[${value.map(inline).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${inline(one)}`);
  return `{${entries.join(", ")}}`;
}
