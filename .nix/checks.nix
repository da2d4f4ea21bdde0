# What `nix flake check` proves, without a server that outlives it.
{
  lib,
  pkgs,
  self,
  stacks,
  postgresql,
  crate,
  xtask,
  configs,
}:
let
  # Lints and tests also read files beside the crate, hence the whole repository as their source.
  cargo =
    inputs: command:
    pkgs.rustPlatform.buildRustPackage (
      crate
      // {
        src = self;
        nativeBuildInputs = inputs;
        buildPhase = command;
        installPhase = "touch $out";
      }
    );

  run = name: inputs: pkgs.runCommand name { nativeBuildInputs = inputs; };

  # The servers of the shell read the files that the stacks give them: a setting they do not know ends them.
  configurationOf =
    name: stack:
    run "configuration-${name}"
      [
        (postgresql stack.postgres.major)
        pkgs.redis
      ]
      (
        ''
          postgres -C config_file -D "$TMPDIR" -c config_file=${configs."postgres-conf-${name}"}
          touch $out
        ''
        + lib.optionalString (stack ? redis) ''
          redis-server ${configs."redis-conf-${name}"} --port 0 --unixsocket "$TMPDIR/redis" --dir "$TMPDIR" &
          for attempt in $(seq 50); do redis-cli -s "$TMPDIR/redis" ping && break; sleep 0.1; done
          redis-cli -s "$TMPDIR/redis" shutdown nosave
          wait $!
        ''
      );
in
{
  build = xtask;
  clippy = cargo [ pkgs.clippy ] "cargo clippy --workspace --all-targets --offline -- -D warnings";
  # The tests without a server; those with servers are `cargo test`, in the shell.
  tests = cargo [ ] "cargo test --bins --offline";
  fmt = cargo [ pkgs.rustfmt ] "cargo fmt --all --check";
  scripts = run "scripts" [ pkgs.shellcheck ] "shellcheck --shell=bash ${self}/.nix/*.sh && touch $out";
  render = run "render" [ xtask ] "XTASK_ROOT=${self} xtask render --check && touch $out";
}
// lib.concatMapAttrs (name: stack: {
  "configuration-${name}" = configurationOf name stack;
}) stacks
