#!/usr/bin/env node
// Starts the binary of the package for this platform, with the same arguments, standard streams and signals.
'use strict';

const { spawn } = require('node:child_process');
const { readFileSync } = require('node:fs');
const { constants } = require('node:os');

const platform = `${process.platform}-${process.arch}`;
const SUPPORTED = ['@SUPPORTED@']; // release/npm.py names them

function binary() {
  try {
    return require.resolve(`@proxyrunner/${platform}/bin/proxyrunner`);
  } catch {
    const reason = SUPPORTED.includes(platform)
      ? `the package @proxyrunner/${platform} is missing; install without --omit=optional or --no-optional`
      : `there is no binary for ${platform}, only for ${SUPPORTED.join(', ')}; build it from source with cargo`;
    console.error(`proxyrunner: ${reason}`);
    process.exit(1);
  }
}

// Becomes the binary, where Node can do that (22.15 and newer): signals and exit codes need no help then.
function replace(program, words) {
  // Under npx a Node has to stay, because npx signals too much (Ctrl-C arrives twice) and too little (SIGTERM not at all).
  if (process.execve && !process.env.npm_execpath) {
    process.execve(program, [program, ...words], process.env);
  }
}

// Whether this process group has the terminal, which then sends Ctrl-C to the binary, too.
function inForeground() {
  const [, , group, , , foreground] = readFileSync('/proc/self/stat', 'latin1').replace(/^.*\) /s, '').split(' ');
  return group === foreground;
}

function run(program, words) {
  const child = spawn(program, words, { stdio: 'inherit' });
  child.on('error', (error) => {
    console.error(`proxyrunner: ${error.message}`);
    process.exit(1);
  });
  let ending = false;
  for (const signal of ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR2']) {
    process.on(signal, () => {
      const byTerminal = ['SIGHUP', 'SIGINT', 'SIGQUIT'].includes(signal) && inForeground();
      if (!byTerminal) child.kill(signal);
      ending ||= byTerminal || signal === 'SIGINT' || signal === 'SIGTERM';
    });
  }
  if (process.env.npm_execpath) {
    // npx starts this by a shell, which dies of SIGTERM without passing it on. Not while proxyrunner ends already: it takes a
    // second signal for "at once".
    const parent = process.ppid;
    setInterval(() => ending || process.ppid === parent || process.emit('SIGTERM'), 500).unref();
  }
  child.on('exit', (code, signal) => process.exit(signal ? 128 + constants.signals[signal] : code));
}

const program = binary();
replace(program, process.argv.slice(2));
run(program, process.argv.slice(2));
