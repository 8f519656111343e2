from tinyaction.cli.benchmark import main

raise SystemExit(main())
