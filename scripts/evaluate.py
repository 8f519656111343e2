from tinyaction.cli.evaluate import main

raise SystemExit(main())
