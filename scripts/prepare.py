from tinyaction.cli.prepare import main

raise SystemExit(main())
