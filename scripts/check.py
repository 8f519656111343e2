from tinyaction.cli.check import main

raise SystemExit(main())
