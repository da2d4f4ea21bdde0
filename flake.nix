{
  description = "An application team's backing infrastructure: toolchain, servers, configuration, images";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      manifests = import ./.nix/stacks.nix { inherit lib; };
      inherit (manifests) package stacks;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];

      outputsFor =
        pkgs:
        let
          # What the verbs start. The newest PostgreSQL comes first: its clients talk to every older server.
          postgresql = major: pkgs."postgresql_${toString major}";
          majors = lib.unique (map (stack: stack.postgres.major) (lib.attrValues stacks));
          servers = map postgresql (lib.sort (a: b: a > b) majors) ++ [ pkgs.redis ];
          containers = [
            pkgs.docker-client
            pkgs.docker-compose
          ];
          # For backups: places elsewhere, and encryption.
          keeping = [
            pkgs.rclone
            pkgs.age
          ];
          toolchain = [
            pkgs.rustc
            pkgs.cargo
            pkgs.clippy
            pkgs.rustfmt
            pkgs.rust-analyzer
            pkgs.cargo-nextest
            pkgs.sqlx-cli
          ];

          shell =
            name: more: env:
            pkgs.mkShell {
              packages = servers ++ containers ++ keeping ++ toolchain ++ more;
              env = env // {
                XTASK_SHELL = name; # how `doctor` knows where it runs
                XTASK_SHELL_RUSTC = pkgs.rustc.version; # and what should be on PATH there
                RUST_SRC_PATH = "${pkgs.rustPlatform.rustLibSrc}"; # for rust-analyzer
              };
              # To stderr: what a command in the shell prints stays clean.
              shellHook = "echo ${lib.escapeShellArg manifests.banner} >&2";
            };
          cloudSdk = pkgs.google-cloud-sdk.withExtraComponents [
            pkgs.google-cloud-sdk.components.pubsub-emulator
          ];
          emulator = [
            cloudSdk
            pkgs.jre_headless
          ];

          crate = {
            pname = package.name;
            inherit (package) version;
            cargoLock.lockFile = ./Cargo.lock;
            doCheck = false; # the tests are a check of their own
            meta = {
              inherit (package) description;
              mainProgram = package.name;
            };
          };
          isOld = builtins.compareVersions pkgs.rustc.version package.rust-version < 0;
          xtask = pkgs.rustPlatform.buildRustPackage (
            lib.throwIf isOld "nixpkgs has rustc ${pkgs.rustc.version}: too old for xtask/Cargo.toml" crate
            // {
              # Only what it is made of: a word in the README builds nothing anew.
              src = lib.fileset.toSource {
                root = ./.;
                fileset = lib.fileset.unions [
                  ./Cargo.toml
                  ./Cargo.lock
                  ./xtask
                ];
              };
              nativeBuildInputs = [
                pkgs.makeBinaryWrapper
                pkgs.installShellFiles
              ];
              postInstall = ''
                for shell in bash zsh fish; do
                  $out/bin/xtask completions $shell > xtask.$shell
                  installShellCompletion --cmd xtask --$shell xtask.$shell
                done
                wrapProgram $out/bin/xtask --prefix PATH : ${lib.makeBinPath (servers ++ containers ++ keeping)}
              '';
            }
          );

          # The configuration of each stack's servers, from the very files that both engines use.
          configOf = name: server: pkgs.writeText "${server}.conf" (manifests.configOf name server);
          configsOf = name: _: lib.mapAttrs' (server: lib.nameValuePair "${server}-conf-${name}") (
            lib.genAttrs (manifests.serversOf name) (configOf name)
          );
          configs = lib.concatMapAttrs configsOf stacks;

          # Containers run Linux: elsewhere there is nothing to build.
          onLinux = lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux;
          containerImages = import ./.nix/images.nix { inherit lib pkgs manifests postgresql; };
          app = program: {
            type = "app";
            program = lib.getExe program;
            meta = { inherit (program.meta) description; };
          };
        in
        {
          packages =
            configs
            // onLinux containerImages.images
            // {
              inherit xtask;
              default = xtask;
              images-lock = pkgs.writeText "images.json" (builtins.toJSON manifests.references);
            };
          apps = onLinux { load-images = app containerImages.load-images; } // {
            xtask = app xtask;
            default = app xtask;
          };
          devShells.default = shell "default" [ ] { };
          # A shell of its own: the Cloud SDK is about 1 GB.
          devShells.gcp = shell "gcp" emulator { CLOUDSDK_ROOT_DIR = "${cloudSdk}/google-cloud-sdk"; };
          checks = import ./.nix/checks.nix {
            inherit lib pkgs self stacks postgresql;
            inherit crate xtask configs;
          };
          formatter = pkgs.nixfmt-tree;
        };
      outputs = lib.genAttrs systems (system: outputsFor nixpkgs.legacyPackages.${system});
      each = output: lib.mapAttrs (_: of: of.${output}) outputs;
    in
    {
      packages = each "packages";
      apps = each "apps";
      devShells = each "devShells";
      checks = each "checks";
      formatter = each "formatter";
    };
}
