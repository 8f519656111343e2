from tinyaction.cli.predict import main

raise SystemExit(main())
