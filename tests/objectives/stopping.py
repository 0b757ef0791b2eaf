"""A run that is stopped before a step, to be started again."""


class Stopped(Exception):
    pass


def stopping_at(number, make_step):
    """`make_step` whose step is not done when the run comes to it."""

    def make(*args, **kwargs):
        step = make_step(*args, **kwargs)

        def until(state, batches, slot, at):
            if at == number:
                raise Stopped
            return step(state, batches, slot, at)

        return until

    return make
