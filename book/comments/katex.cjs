// Sets formulas: reads a line {"id", "formulas": [[latex, display], …]}, writes a line {"id", "html": [text or null, …]}.
// The first line it writes names KaTeX's version. What a formula defines ends with it, and none may link or load anything.
const katex = require(process.argv[2]);

const write = value => process.stdout.write(JSON.stringify(value) + "\n");

function set([latex, displayMode]) {
  try {
    return katex.renderToString(latex, {
      displayMode, macros: {}, trust: false, strict: "ignore", throwOnError: true, maxSize: 10, maxExpand: 300,
    });
  } catch {
    return null;
  }
}

write({version: katex.version});
require("readline").createInterface({input: process.stdin}).on("line", line => {
  const {id, formulas} = JSON.parse(line);
  write({id, html: formulas.map(set)});
});
