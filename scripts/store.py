from tinyaction.cli.store import main

raise SystemExit(main())
