// The official JavaScript client's exec, attach, copy and port-forward into the pod `web`: one line a step, `ok NAME` or
// `FAIL NAME: why`.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { PassThrough, Writable } from "node:stream";
import { Attach, Exec, KubeConfig, Log, PortForward } from "@kubernetes/client-node";

const LIMIT_MS = 20_000;
const config = new KubeConfig();
config.loadFromDefault();

const sink = () => {
  const pieces = [];
  const writable = new Writable({ write(piece, _, done) { pieces.push(piece); done(); } });
  return { writable, text: () => Buffer.concat(pieces).toString() };
};

/** Runs a command to its end; what it printed, and its status. */
async function run(command, stdin, tty = false) {
  const [out, err] = [sink(), sink()];
  const status = await new Promise((done, failed) => {
    const exec = new Exec(config);
    exec.exec("default", "web", "main", command, out.writable, err.writable, stdin, tty, done).catch(failed);
    globalThis.setTimeout(() => failed(new Error("no end")), LIMIT_MS).unref();
  });
  return { out: out.text(), err: err.text(), status };
}

const steps = {
  async execGivesOutputAndStatus() {
    const { out, err, status } = await run(["sh", "-c", "echo out; echo err >&2"], null);
    assert.deepEqual([out, err, status.status], ["out\n", "err\n", "Success"]);
  },

  async execGivesTheExitCode() {
    const { status } = await run(["sh", "-c", "exit 7"], null);
    assert.deepEqual([status.reason, status.details.causes], ["NonZeroExitCode", [{ reason: "ExitCode", message: "7" }]]);
  },

  async execTakesInput() {
    const input = new PassThrough();
    input.write("one\n");
    const { out } = await run(["sh", "-c", "read word; echo got $word"], input);
    assert.equal(out, "got one\n");
  },

  async attachGivesOutput() {
    const [out, input] = [new PassThrough(), new PassThrough()];
    const socket = await new Attach(config).attach("default", "web", "echo", out, null, input, false);
    input.write("hello\n");
    const [piece] = await once(out, "data", { signal: AbortSignal.timeout(LIMIT_MS) });
    assert.equal(String(piece), "heard hello\n");
    socket.close();
  },

  async portForwardCarriesConnections() {
    const forward = new PortForward(config);
    const server = createServer((socket) => forward.portForward("default", "web", [7000], socket, null, socket));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const socket = connect(server.address().port, "127.0.0.1");
    socket.write("stressed\n");
    const [piece] = await once(socket, "data", { signal: AbortSignal.timeout(LIMIT_MS) });
    assert.equal(String(piece), "desserts");
    socket.destroy();
    server.close();
  },

  async logsAreFollowed() {
    const out = new PassThrough();
    const controller = await new Log(config).log("default", "web", "echo", out, { follow: true, tailLines: 1 });
    const [piece] = await once(out, "data", { signal: AbortSignal.timeout(LIMIT_MS) });
    assert.match(String(piece), /^heard /);
    controller.abort();
  },
};

for (const [name, step] of Object.entries(steps)) {
  try {
    await step();
    console.log("ok", name);
  } catch (error) {
    console.error(error);
    console.log(`FAIL ${name}: ${String(error.message ?? error).replaceAll(/\s+/g, " ")}`);
  }
}
process.exit();
