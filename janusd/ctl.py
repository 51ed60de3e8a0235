"""janusctl: looks at a running janusd through its control API, and moves load; tables or, with --json, JSON."""

from __future__ import annotations

from janusd import ctl_app, ctl_csb
from janusd.ctl_commands import main

main.add_command(ctl_csb.csb)
main.add_command(ctl_app.app)

if __name__ == "__main__":
    main()
