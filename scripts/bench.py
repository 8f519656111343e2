from tinyaction.cli.bench import main

raise SystemExit(main())
