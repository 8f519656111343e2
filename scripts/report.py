from tinyaction.cli.report import main

raise SystemExit(main())
