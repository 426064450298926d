// Asks a run folder in SQL: node query.mjs RUN "SQL" prints the rows as JSON.
//
// The tables requests, spans and cells are read from the Arrow files by
// apache-arrow and handed to DuckDB, column by column. Both packages come from
// npm: npm install apache-arrow@21.2.0 @duckdb/node-api@1.5.6-r.1
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DataType, tableFromIPC } from 'apache-arrow';
import { BIGINT, DOUBLE, DuckDBInstance, INTEGER, LIST, listValue, UBIGINT, VARCHAR } from '@duckdb/node-api';

// typeOf is DuckDB's type for Arrow's.
function typeOf(t) {
  if (DataType.isDictionary(t) || DataType.isUtf8(t)) return VARCHAR;
  if (DataType.isFloat(t)) return DOUBLE;
  if (DataType.isList(t)) return LIST(typeOf(t.children[0].type));
  if (DataType.isInt(t) && t.bitWidth === 64) return t.isSigned ? BIGINT : UBIGINT;
  if (DataType.isInt(t)) return INTEGER;
  throw new Error(`no type of DuckDB for Arrow's ${t}`);
}

async function load(db, run, name) {
  const table = tableFromIPC(readFileSync(join(run, `${name}.arrow`)));
  const types = table.schema.fields.map((f) => typeOf(f.type));
  const columns = table.schema.fields.map((f, i) => `"${f.name}" ${types[i]}`);
  await db.run(`CREATE TABLE ${name} (${columns.join(', ')})`);
  const appender = await db.createAppender(name);
  for (let row = 0; row < table.numRows; row++) {
    types.forEach((type, i) => {
      const value = table.getChildAt(i).get(row);
      if (value === null) appender.appendNull();
      else if (type.valueType) appender.appendList(listValue([...value]), type);
      else appender.appendValue(value, type);
    });
    appender.endRow();
  }
  appender.closeSync();
}

const [run, sql] = process.argv.slice(2);
if (!sql) {
  console.error('usage: node query.mjs RUN "SELECT ... FROM requests, spans, cells"');
  process.exit(2);
}
const db = await (await DuckDBInstance.create(':memory:')).connect();
for (const name of ['requests', 'spans', 'cells']) await load(db, run, name);
console.log(JSON.stringify((await db.runAndReadAll(sql)).getRowObjectsJson(), null, 2));
