from tinyaction.cli import main

raise SystemExit(main())
