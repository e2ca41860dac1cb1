// Validate AsyncAPI documents with the initiative's own parser: a line for each finding, exit 1
// where one is an error or a warning.
const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

const SEVERITIES = ["error", "warning", "information", "hint"];

async function main(files) {
  const parser = new Parser();
  let wrong = false;
  for (const file of files) {
    const { document, diagnostics } = await parser.parse(readFileSync(file, "utf-8"));
    for (const { severity, code, path, message } of diagnostics) {
      wrong ||= severity <= 1;
      console.log(`${SEVERITIES[severity]} ${code} at ${path.join(".")}: ${message}`);
    }
    if (document === undefined) wrong = true;
    else console.log(`valid: AsyncAPI ${document.version()}, ${document.channels().length} channels`);
  }
  process.exitCode = wrong ? 1 : 0;
}

main(process.argv.slice(2));
