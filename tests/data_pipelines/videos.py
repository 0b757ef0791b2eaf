"""Videos that tests write."""

import cv2


def write_video(file, images, rate=2.0, code="MJPG"):
    """Frames, uint8 [H, W, 3] BGR, as a video file; returns its path."""
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), rate, images[0].shape[1::-1])
    assert writer.isOpened()
    for image in images:
        writer.write(image)
    writer.release()
    return file
