from tinyaction.cli.explain import main

raise SystemExit(main())
