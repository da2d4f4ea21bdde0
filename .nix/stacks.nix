# What the manifests and the pins say, read from the very files the helper reads: nothing of it is repeated in Nix.
{ lib }:
let
  readToml = path: builtins.fromTOML (builtins.readFile path);
  root = ../.;

  # As for the helper: every other TOML file of config/ is a stack.
  notStacks = [
    "images"
    "toolbox"
  ];
  tomlFiles = lib.filter (lib.hasSuffix ".toml") (lib.attrNames (builtins.readDir (root + "/config")));
  isStack = name: !lib.elem name notStacks;
in
rec {
  package = (readToml (root + "/xtask/Cargo.toml")).package;
  images = readToml (root + "/config/images.toml");
  names = lib.filter isStack (map (lib.removeSuffix ".toml") tomlFiles);
  stacks = lib.genAttrs names (name: checked name (readToml (root + "/config/${name}.toml")));

  # The stack that is meant when none is named, and the owner of `.env`.
  default = if stacks ? effect then "effect" else lib.head names;
  envFile = name: if name == default then ".env" else ".env.${name}";

  # The number that a tag begins with.
  majorOf = version: lib.head (builtins.splitVersion version);

  imageNamed = key: images.${key} or (throw "config/images.toml has no ${key}");
  # Which of the servers that have a configuration file a stack has: Redis is nobody's duty.
  serversOf = name: lib.filter (server: stacks.${name} ? ${server}) servers;
  servers = [
    "postgres"
    "redis"
  ];

  # Manifest and tag both say the major version: PostgreSQL's exactly, Redis' at least. Where they differ, somebody forgot
  # one of them. Tools have no version in the manifest, but their images must be there.
  checked =
    name: stack:
    let
      users = map (server: stack.${server} or null) servers ++ lib.attrValues (stack.tools or { });
      there = lib.filter (user: user != null) users;
      tag = user: (imageNamed user.image).tag;
      order = user: builtins.compareVersions (majorOf (tag user)) (toString (user.major or (majorOf (tag user))));
      fits = user: if user == stack.postgres then order user == 0 else order user >= 0;
      say = user: "config/${name}.toml wants major ${toString user.major} of ${user.image}, pinned to ${tag user}";
      wrong = lib.filter (user: !fits user) there;
    in
    lib.throwIf (wrong != [ ]) (lib.concatMapStringsSep "; " say wrong) stack;

  # `NAME:TAG@DIGEST` of every image, for readers that are no TOML parsers.
  references = lib.mapAttrs (_: image: "${image.name}:${image.tag}@${image.digest}") images;

  # The text of a server's configuration file, which containers mount and the native engine copies.
  configOf = name: server: builtins.readFile (root + "/${stacks.${name}.${server}.config}");

  # The ports as the manifest gives them; `.env` may move them, and `cargo xtask ports` knows.
  portsOf =
    name:
    let
      stack = stacks.${name};
      shared = lib.filterAttrs (key: _: key == "redis" || key == "pubsub") stack;
      line = service: ports: "${service} ${lib.concatMapStringsSep " and " (at: toString at.port) ports}";
      lines = lib.mapAttrsToList line;
      single = lib.mapAttrs (_: at: [ at ]);
      tools = lib.mapAttrs (_: tool: tool.ports) (stack.tools or { });
    in
    lib.concatStringsSep ", " (
      lines (single stack.databases) ++ lines (single shared) ++ lines tools
    );

  # What the shell says on entering.
  banner = lib.concatStringsSep "\n" (
    map (name: "${name}: ${portsOf name}") names
    ++ [ "`cargo xtask up` starts a stack, `status` shows what runs, `doctor` what is wrong" ]
  );
}
