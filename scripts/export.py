from tinyaction.cli.export import main

raise SystemExit(main())
