from tests.support.fixtures import new_shop as new_shop
from tests.support.fixtures import sandbox as sandbox
from tests.support.fixtures import shop as shop
