"""What `cdk` runs: the stack, by the parameters of the context, checked by cdk-nag.

cdk deploy -c model=... -c email=me@example.org
"""

import sys

from aws_cdk import App, Validations
from cdk_nag import AwsSolutionsChecks

from infra.config import Config, ConfigError
from infra.stack import DrawingStack


def main() -> None:
    app = App()
    try:
        config = Config.from_context(app.node.try_get_context)
    except ConfigError as error:
        sys.exit(str(error))
    DrawingStack(app, "SdPokemon", config)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()


if __name__ == "__main__":
    main()
