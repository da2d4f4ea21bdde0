# OCI images built from nixpkgs, to stand in the place of the pinned ones. They keep what the generated Compose files rely
# on: entrypoint, environment, users, volumes, signals, and a shell with the programs of the healthchecks.
{
  lib,
  pkgs,
  manifests,
  postgresql,
}:
let
  # User and group have the numbers of the official Alpine images, so that a volume can go from one to the other.
  build =
    {
      name,
      package,
      user,
      uid,
      gid,
      folders,
      config,
    }:
    let
      version = lib.getVersion package;
    in
    {
      reference = "xtask-${name}:${version}";
      stream = pkgs.dockerTools.streamLayeredImage {
        name = "xtask-${name}";
        tag = version;
        contents = [
          package
          (pkgs.writeShellScriptBin "docker-entrypoint.sh" (builtins.readFile (./. + "/${name}.sh")))
          pkgs.bash
          pkgs.coreutils
          pkgs.findutils
          pkgs.gnugrep
          pkgs.gzip
          pkgs.util-linux # setpriv
        ];
        fakeRootCommands = ''
          mkdir -p etc root tmp docker-entrypoint-initdb.d ${toString folders}
          printf '%s\n' root:x:0:0::/root:/bin/sh ${user}:x:${uid}:${gid}::/:/bin/sh > etc/passwd
          printf '%s\n' root:x:0: ${user}:x:${gid}: > etc/group
          chmod 1777 tmp
          chown ${uid}:${gid} ${toString folders}
        '';
        config = config // {
          Entrypoint = [ "docker-entrypoint.sh" ];
          Env = [ "PATH=/bin" ] ++ config.Env or [ ];
        };
      };
    };

  postgres =
    package:
    let
      version = lib.getVersion package;
      major = manifests.majorOf version;
      # From 18 on the volume is one folder higher, so that it can hold the data of several major versions.
      isNew = builtins.compareVersions version "18" >= 0;
      volume = if isNew then "/var/lib/postgresql" else "/var/lib/postgresql/data";
    in
    build {
      inherit package;
      name = "postgres";
      user = "postgres";
      uid = "70";
      gid = "70";
      # The socket's folder is where nixpkgs' server and clients look for it.
      folders = [
        ".${volume}"
        "run/postgresql"
      ];
      config = {
        Cmd = [ "postgres" ];
        Env = [
          "LANG=C.UTF-8"
          "PG_MAJOR=${major}"
          "PG_VERSION=${version}"
          "PGDATA=${if isNew then "${volume}/${major}/docker" else volume}"
        ];
        ExposedPorts."5432/tcp" = { };
        StopSignal = "SIGINT"; # a fast shutdown; SIGTERM would wait for the clients
        Volumes.${volume} = { };
      };
    };

  redis = build {
    name = "redis";
    package = pkgs.redis;
    user = "redis";
    uid = "999";
    gid = "1000";
    folders = [ "data" ];
    config = {
      Cmd = [ "redis-server" ];
      Env = [ "REDIS_VERSION=${lib.getVersion pkgs.redis}" ];
      ExposedPorts."6379/tcp" = { };
      Volumes."/data" = { };
      WorkingDir = "/data";
    };
  };

  pinned = name: server: manifests.imageNamed manifests.stacks.${name}.${server}.image;
  candidates = name: {
    postgres = postgres (postgresql manifests.stacks.${name}.postgres.major);
    inherit redis;
  };
  # What nixpkgs can give a stack: an image of another major version than the pinned one might not take its data.
  fits =
    name: server: image:
    lib.elem server (manifests.serversOf name)
    && lib.hasPrefix "xtask-${server}:${manifests.majorOf (pinned name server).tag}." image.reference;
  imagesOf = name: lib.filterAttrs (fits name) (candidates name);

  keyed =
    key: name:
    lib.mapAttrs' (server: image: lib.nameValuePair "image-${key server}" image.stream) (imagesOf name);

  loadOf = name: ''
    ${name})
      ${lib.concatStrings (
        lib.mapAttrsToList (server: image: ''
          ${image.stream} | docker load >&2
          echo '${(pinned name server).variable}=${image.reference}'
        '') (imagesOf name)
      )}
      echo "these lines belong into ${manifests.envFile name}" >&2
      ;;
  '';
in
{
  # By the keys of config/images.toml, and those of the default stack by their short names.
  images =
    lib.concatMapAttrs (name: _: keyed (server: manifests.stacks.${name}.${server}.image) name) manifests.stacks
    // keyed (server: server) manifests.default;

  load-images = pkgs.writeShellApplication {
    name = "load-images";
    meta.description = "Loads the images built from nixpkgs into Docker, and prints the lines of .env that use them";
    runtimeInputs = [ pkgs.docker-client ];
    text = ''
      stack=''${1:-''${XTASK_STACK:-${manifests.default}}}
      case "$stack" in
      ${lib.concatMapStrings loadOf manifests.names}
      *)
        echo "load-images: no stack $stack; there are: ${toString manifests.names}" >&2
        exit 2
        ;;
      esac
    '';
  };
}
