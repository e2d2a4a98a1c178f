"""What crosses the channel arrives as it was sent."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.limits import Limit, parse_limit
from pytest_llmmem.workers import messages

st.register_type_strategy(float, st.floats(allow_nan=False))  # which equals nothing, itself neither
st.register_type_strategy(Limit, st.sampled_from(["8GB", "1.1 * weights + shard", "50% host"]).map(parse_limit))


@given(
    st.one_of(
        *(
            st.from_type(kind)
            for kind in (
                messages.Ready,
                messages.Boundary,
                messages.Spent,
                messages.Accepted,
                messages.Streams,
                messages.Finished,
            )
        )
    )
)
def test_every_message_round_trips(message: object) -> None:
    assert pickle.loads(pickle.dumps(message)) == message
