from tinyaction.cli.models import main

raise SystemExit(main())
