from tinyaction.cli.embed import main

raise SystemExit(main())
