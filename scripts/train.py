from tinyaction.cli.train import main

raise SystemExit(main())
