#!/usr/bin/env bash
# Checks, without a container engine, that the image can be built: copies the build context, which is the repository
# without the files that .dockerignore excludes, and lets Cargo resolve the workspace there with the lock file.
#
#   infra/deploy/check-image.sh                     # cargo metadata: every member of the workspace is in the context
#   CHECK_IMAGE=full infra/deploy/check-image.sh    # also cargo check: the context has every file that the binary needs
#
# Needs cargo and python3 3.8 or later. Exit code 0: fine, 1: a finding, 2: a program is missing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# In the root, rust-toolchain.toml selects the toolchain; the context is without it.
cd "$root"
for program in cargo python3; do
  command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 2; }
done
finding() {
  echo "FINDING: $*" >&2
  exit 1
}

# The context is copied as a whole, and the image builds with the toolchain of the repository.
grep -qx 'COPY \. \.' "$here/Dockerfile" || finding "the Dockerfile does not copy the whole context"
channel=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
grep -q "^FROM rust:$channel-" "$here/Dockerfile" || finding "the Dockerfile builds with another Rust than $channel"

# Always the same folder, so that cargo check builds again only what changed.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
context=$CARGO_TARGET_DIR/check-image/context
mkdir -p "$CARGO_TARGET_DIR/check-image"
rm -rf "$context"

# Copies the context. Follows https://docs.docker.com/build/concepts/context/#dockerignore-files: a pattern matches a
# path or one of its parent folders, from the root; the last pattern that matches decides, and ! includes again.
python3 - "$root" "$context" <<'PYTHON'
import os, re, shutil, sys

root, context = sys.argv[1:]


def regex(pattern):
    """The regular expression of a pattern: `*` and `?` stay within a component of the path, `**` does not."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]*\])", pattern)
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    text = "".join(special.get(part) or (part if part.startswith("[") else re.escape(part)) for part in parts)
    return re.compile(text + r"(?:/.*)?")


rules = []
with open(os.path.join(root, ".dockerignore"), encoding="utf-8") as file:
    for line in map(str.strip, file):
        if "\\" in line:
            sys.exit(f".dockerignore: escapes are not supported by this check: {line}")
        if line and not line.startswith("#"):
            excludes = not line.startswith("!")
            rules.append((excludes, regex(os.path.normpath(line.lstrip("!")).lstrip("/"))))


def excluded(path):
    return next((excludes for excludes, pattern in reversed(rules) if pattern.fullmatch(path)), False)


files = size = 0
for folder, subfolders, names in os.walk(root):
    below = os.path.relpath(folder, root)
    # Excluded folders are entered too, because a later pattern may include a file in them. These two are large and are
    # left out.
    subfolders[:] = [name for name in subfolders if name not in (".git", "target")]
    for name in names:
        path = os.path.normpath(os.path.join(below, name))
        if not excluded(path):
            target = os.path.join(context, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(os.path.join(root, path), target, follow_symlinks=False)
            files, size = files + 1, size + os.lstat(target).st_size
for name in (".git", "target"):
    if not excluded(name):
        sys.exit(f"FINDING: .dockerignore does not exclude {name}")
print(f"the build context has {files} files, {size / 1e6:.1f} MB")
PYTHON

# Lists the members of a workspace. Cargo does not notice that a folder of the pattern infra/* is missing, so the members
# of the repository and of the context are compared.
members() {
  cargo metadata --locked --format-version 1 --no-deps --manifest-path "$1/Cargo.toml" |
    python3 -c 'import json, sys; [print(package["name"]) for package in json.load(sys.stdin)["packages"]]' | sort
}
members "$root" >"$context.members"
cargo metadata --locked --format-version 1 --manifest-path "$context/Cargo.toml" >/dev/null ||
  finding "Cargo can't resolve the workspace in the build context: see above, and .dockerignore"
missing=$(members "$context" | comm -23 "$context.members" -)
[[ -z $missing ]] || finding "not in the build context: $missing"
echo "all $(wc -l <"$context.members") members of the workspace are in it"

if [[ ${CHECK_IMAGE:-} == full ]]; then
  cargo check --locked --package chat-api --manifest-path "$context/Cargo.toml" ||
    finding "the binary can't be built from the build context"
  echo "the binary can be built from it"
fi
